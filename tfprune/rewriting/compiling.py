"""Compile settings of a copy, and what of a user's own training it cannot take along."""

import inspect
import warnings
from typing import Any

import keras

_TRAINING = (
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "compile", "fit"),
    *("make_train_function", "make_test_function", "make_predict_function"),
)
"""Methods of `keras.Model` that a user overrides to train or predict in a way of one's own."""


def class_of_copy(model: keras.Model, plain: type[keras.Model]) -> Any:
    """Return the class that a copy of a model can have.

    Args:
        model: The model.
        plain: `keras.Sequential`, or the class of functional models: what its constructor would have to be like.

    Returns:
        The model's class if its constructor takes what that of `plain` takes, else `plain`: a subclass whose
        constructor takes something else makes layers of its own accord.
    """
    if not isinstance(model, plain):
        return plain
    found, known = (inspect.getfullargspec(each.__init__) for each in (type(model), plain))
    passes_on = found.varargs and found.varkw and not found.args[1:] and not found.kwonlyargs
    return type(model) if found == known or passes_on else plain


def warn_of_lost_training(model: keras.Model, copy: keras.Model) -> None:
    """Warn if the class of a model trains in a way of its own and a copy does not have it.

    Args:
        model: The model.
        copy: The copy.
    """
    if isinstance(copy, type(model)):
        return
    own = [name for name in _TRAINING if getattr(type(model), name) is not getattr(type(copy), name)]
    if own:
        warnings.warn(
            f"The copy of {model.name!r} is a {type(copy).__name__} and no {type(model).__name__}, so it does not have "
            f"its {', '.join(own)}. A class is kept if its models are made as "
            f"{type(model).__name__}(inputs, outputs), without a constructor or a call of its own.",
            stacklevel=4,
        )


def compile_like(model: keras.Model, copy: keras.Model, learning_rate: Any = None) -> None:
    """Compile a copy as the model is: with the same losses, new metrics, and a new optimizer of the same settings.

    Args:
        model: A model, compiled or not; it is not changed.
        copy: The copy; it stays as it is if the model is not compiled.
        learning_rate: For the new optimizer: a number or a `LearningRateSchedule`; None for the model's.
    """
    if not model.compiled:
        return
    arguments = compile_arguments(model)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_new_metric, arguments.get(name))
    optimizer = arguments["optimizer"]
    if learning_rate is not None or isinstance(optimizer, keras.optimizers.Optimizer):
        arguments["optimizer"] = _new_optimizer(keras.optimizers.get(optimizer), learning_rate)
    copy.compile(**arguments)


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return what a compiled model was compiled with, as it was given.

    Args:
        model: A compiled model.
    """
    # Private: the arguments as given to compile(). The public get_compile_config() has only names and configs, in
    # which lambdas cannot be found and some losses lose arguments. tests/shrinking/test_shrink.py fails when it moves.
    return dict(model._compile_config.config)


def _new_optimizer(optimizer: keras.optimizers.Optimizer, learning_rate: Any) -> keras.optimizers.Optimizer:
    # A rate that is replaced by a schedule later leaves an optimizer that TensorFlow cannot save.
    config = optimizer.get_config()
    if learning_rate is not None and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = _new_optimizer(optimizer.inner_optimizer, learning_rate)
        config["inner_optimizer"] = keras.optimizers.serialize(inner)
    elif learning_rate is not None:
        config["learning_rate"] = learning_rate
    return type(optimizer).from_config(config)


def _new_metric(metric: Any) -> Any:
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
