"""Which optimizers train a model: its own, and all others that it holds."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras


def updating_optimizers(model: keras.Model) -> list[Any]:
    """Return the optimizers that may update a model's weights.

    They are `model.optimizer`, and those that a model with a `train_step` of its own holds: as attributes, also of
    models and layers inside, in lists and in dicts. Of one that is wrapped by a `LossScaleOptimizer` it is the inner
    one.

    Args:
        model: A Keras model.

    Returns:
        Each optimizer once, `model.optimizer` first.

    Raises:
        ValueError: If the model is not compiled and holds none.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> model.others = {"late": [keras.optimizers.Adam()]}
    >>> [type(optimizer).__name__ for optimizer in updating_optimizers(model)]
    ['SGD', 'Adam']
    """
    found: dict[int, Any] = {}
    for optimizer in [getattr(model, "optimizer", None), *_held(model, set())]:
        if optimizer is not None:
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            found[id(inner)] = inner
    if not found:
        raise ValueError(
            f"The model {model.name!r} is not compiled and holds no optimizer, so nothing is known to train it. "
            "Call model.compile() with the optimizer that trains it, or keep that as an attribute of the model."
        )
    return list(found.values())


def optimizer_parts(optimizer: Any) -> list[Any]:
    """Return an optimizer and those that it hands weights to, as a `MultiOptimizer` does.

    Args:
        optimizer: One of `updating_optimizers`.
    """
    return [optimizer, *getattr(optimizer, "optimizers", ())]


def _held(value: Any, seen: set[int]) -> Iterator[Any]:
    """The optimizers in the attributes of layers and models, and in the containers there."""
    if isinstance(value, keras.optimizers.Optimizer):
        yield value
        return
    if isinstance(value, keras.layers.Layer):
        inside: Any = vars(value).values()
    elif isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = value
    else:
        return
    if id(value) not in seen:
        seen.add(id(value))
        for each in list(inside):
            yield from _held(each, seen)
