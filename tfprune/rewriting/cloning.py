"""A smaller copy of a model: its layers made anew from edited configs, with the weights that stay."""

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import Analysis, find_rule, functional
from tfprune.graph.rules.axes import resized
from tfprune.graph.walk import Shape
from tfprune.rewriting.edits import Edits, EditsInTurn

Copy = Callable[[keras.layers.Layer], Any]
"""Gives the smaller copy of a layer, or a function that calls it with arguments as the layer takes them."""


def rebuild(model: keras.Model, analysis: Analysis, alive: np.ndarray, biases: dict[int, np.ndarray]) -> keras.Model:
    """Return a copy of a model in which only some channels stay.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        alive: One bool per channel number; False for those that go.
        biases: For layers (by id), the biases that take the place of theirs, before removal.

    Returns:
        A new model, compiled like the model.
    """
    return _rebuild(model, analysis, alive, biases)[0]


def rebuild_anew(model: keras.Model, analysis: Analysis, counts: np.ndarray) -> keras.Model:
    """Return a model of the same architecture with other widths and new weights.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        counts: For each channel number, how many channels take its place; an int array, the same for tied channels.

    Returns:
        A new model, compiled like the model. Preprocessing layers keep what they learned in `adapt`.
    """
    copy, pairs, _ = _remake(model, analysis, counts, {})
    for layer, twin in pairs:
        copy_adapted_state(layer, twin)
    return copy


def duplicate(
    model: keras.Model, analysis: Analysis, edits: Edits | None = None
) -> tuple[keras.Model, dict[int, keras.Variable]]:
    """Return a whole copy of a model, and which of its variables stands for which (by id) of the model.

    Layers made of layers come back as functional models, so the weights of the two may stand in another order.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        edits: What changes about calls of layers; `None` for nothing.

    Returns:
        The copy and the variables.
    """
    copy, pairs = _rebuild(model, analysis, np.ones(analysis.trace.num_channels, bool), {}, edits)
    variables = [zip(layer.variables, twin.variables, strict=True) for layer, twin in pairs]
    return copy, {id(variable): twin for each in variables for variable, twin in each}


Pairs = list[tuple[keras.layers.Layer, keras.layers.Layer]]


def _rebuild(
    model: keras.Model,
    analysis: Analysis,
    alive: np.ndarray,
    biases: dict[int, np.ndarray],
    edits: Edits | None = None,
) -> tuple[keras.Model, Pairs]:
    small, pairs, factors = _remake(model, analysis, alive, biases, edits)
    for layer, copy in pairs:
        _copy_weights(layer, copy, analysis, alive, biases.get(id(layer)), factors)
        copy_adapted_state(layer, copy)
    return small, pairs


def _remake(
    model: keras.Model,
    analysis: Analysis,
    alive: np.ndarray,
    biases: dict[int, np.ndarray],
    edits: Edits | None = None,
) -> tuple[keras.Model, Pairs, dict[int, float]]:
    """The copy with fresh weights, its layers beside those of the model, and by which factors some weights change."""
    calls = {id(call.layer): call for call in reversed(analysis.trace.calls)}
    views = analysis.trace.views
    pairs: Pairs = []
    factors: dict[int, float] = {}
    copies: dict[int, Any] = {}
    in_turn = EditsInTurn(edits or {})

    def sizes(layer: keras.layers.Layer) -> list[Shape]:
        entries = [analysis.trace.flows[flow] for flow in analysis.trace.entries[id(layer)]]
        return [resized(t.shape, e, alive) for t, e in zip(views[id(layer)].inputs, entries, strict=True)]

    def copy_of(layer: keras.layers.Layer) -> Any:
        if id(layer) not in copies:
            view = views.get(id(layer))
            copies[id(layer)] = resize(layer) if view is None else _clone(view, copy_of, edited, in_turn, sizes(layer))
        return copies[id(layer)]

    def call_of(layer: keras.layers.Layer) -> Callable[..., Any]:
        rule, copy = find_rule(layer), copy_of(layer)
        if views.get(id(layer), layer) is not layer:  # its copy takes tensors only, one after another
            return lambda *args, **kwargs: copy(_tensors((args, kwargs)))
        if rule is None or rule.rearrange is None:
            return copy
        rearrange, call = rule.rearrange, calls[id(layer)]

        def rearranged(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = rearrange(call, args, kwargs, alive)
            return copy(*args, **kwargs)

        return rearranged

    def edited(layer: keras.layers.Layer) -> Callable[..., Any]:
        if not in_turn.has(layer):
            return call_of(layer)

        # Keras asks for a layer once, and then calls it several times.
        def call(*args: Any, **kwargs: Any) -> Any:
            edit = in_turn.next(layer)
            return edit.apply(layer if edit.skips else call_of(layer), args, kwargs)

        return call

    def resize(layer: keras.layers.Layer) -> keras.layers.Layer:
        rule = find_rule(layer)
        try:
            config = layer.get_config()
        except NotImplementedError:
            if isinstance(layer, keras.layers.Layer):
                raise
            return layer  # an operation of `keras.ops` has no state, and not all of them have a config
        if rule is not None and rule.resize is not None:
            rule.resize(calls[id(layer)], config, alive)
        if rule is not None and rule.rescale is not None:
            factors.update(rule.rescale(calls[id(layer)], alive))
        if id(layer) in biases and "use_bias" in config:  # an EinsumDense has its bias already
            config["use_bias"] = True
        copy = made_from_config(layer, config)
        if isinstance(layer, keras.layers.Layer):
            pairs.append((layer, copy))
        return copy

    small = _clone(model, copy_of, edited, in_turn, [tensor.shape for tensor in functional(model).inputs])
    return small, pairs, factors


def _copy_weights(
    layer: keras.layers.Layer,
    copy: keras.layers.Layer,
    analysis: Analysis,
    alive: np.ndarray,
    bias: np.ndarray | None,
    factors: dict[int, float],
) -> None:
    targets = [variable for variable in copy.variables if bias is None or variable is not copy.bias]
    sources = [variable for variable in layer.variables if bias is None or variable is not layer.bias]
    for variable, target in zip(sources, targets, strict=True):
        value = variable.numpy()
        for axis in range(value.ndim):
            binding = analysis.trace.bindings.get((id(variable), axis))
            if binding is not None and not alive[binding.channels].all():
                value = value.compress(alive[binding.channels], axis=axis)
        target.assign(value * factors[id(variable)] if id(variable) in factors else value)
    if bias is not None:
        made = analysis.trace.bindings[id(layer.kernel), len(layer.kernel.shape) - 1].channels
        copy.bias.assign(bias[alive[made]])


def made_from_config(layer: keras.layers.Layer, config: dict[str, Any]) -> keras.layers.Layer:
    """Make a layer of the same class from its edited config.

    Args:
        layer: The layer.
        config: What its `get_config` returns, perhaps with other sizes or data types.

    Returns:
        The new layer.
    """
    if not isinstance(layer, keras.layers.Lambda):
        return type(layer).from_config(config)
    # Its from_config refuses a Python lambda, as it might come from a stranger's file. This one is the user's own.
    named = {key: config[key] for key in ("name", "trainable", "dtype")}
    options = {"mask": layer.mask, "arguments": layer.arguments}
    # Private: the output shape as it was given, of which get_config() has the code alone.
    return keras.layers.Lambda(layer.function, output_shape=layer._output_shape, **options, **named)


def copy_adapted_state(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Copy what a preprocessing layer learned in `adapt`, as Keras saves and loads it; leave other layers alone.

    Its variables are not all of it: Normalization computes with constants made from them, and a lookup layer has a
    vocabulary.

    Args:
        layer: A layer.
        copy: A layer made from its config, and built.
    """
    if not hasattr(layer, "finalize_state"):
        return
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    copy.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)


def _tensors(arguments: Any) -> Any:
    tensors = [value for value in keras.tree.flatten(arguments) if isinstance(value, keras.KerasTensor)]
    return tensors if len(tensors) > 1 else tensors[0]


def _clone(
    model: keras.Model, copy_of: Copy, call_of: Copy, in_turn: EditsInTurn, shapes: Sequence[Shape]
) -> keras.Model:
    """Clone with the input layers' names (clone_model names them after their tensors) and the compile settings."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    inputs = [
        keras.Input(batch_shape=shape, dtype=tensor.dtype, name=names.get(id(tensor)))
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    if isinstance(model, keras.Sequential):
        # It holds layers themselves; they take one tensor and nothing else.
        clone = type(model)([inputs[0], *_steps(model, copy_of, in_turn)], name=model.name)
    else:
        # clone_model compiles by name what is compiled, which loses arguments of losses; the view is not compiled.
        view = keras.Model(model.input, model.output, name=model.name)
        packed = keras.tree.pack_sequence_as(model.input, inputs)
        clone = keras.models.clone_model(view, packed, clone_function=call_of)
        # A subclass whose constructor takes something else is made of the layers that it once made itself.
        if inspect.getfullargspec(type(model).__init__) == inspect.getfullargspec(type(view).__init__):
            clone = type(model)(clone.input, clone.output, name=model.name)
    if not model.trainable:  # its layers know, but the flag of a nested model itself is not in its config
        clone.trainable = False
    compile_like(model, clone)
    return clone


def _steps(model: keras.Sequential, copy_of: Copy, in_turn: EditsInTurn) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        edit = in_turn.next(layer)
        if not edit.skips:
            yield copy_of(layer)
        if edit.after is not None:
            yield edit.after


def compile_like(model: keras.Model, copy: keras.Model, learning_rate: Any = None) -> None:
    """Compile a copy as the model is: with the same losses, new metrics, and a new optimizer of the same settings.

    Args:
        model: A model, compiled or not; it is not changed.
        copy: The copy; it stays as it is if the model is not compiled.
        learning_rate: For the new optimizer: a number or a `LearningRateSchedule`; None for the model's.
    """
    if not model.compiled:
        return
    # Private: the arguments as given to compile(). The public get_compile_config() has only names and configs, in
    # which lambdas cannot be found and some losses lose arguments. tests/shrinking/test_shrink.py fails when it moves.
    arguments = dict(model._compile_config.config)
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(_new_metric, arguments.get(name))
    optimizer = arguments["optimizer"]
    if learning_rate is not None or isinstance(optimizer, keras.optimizers.Optimizer):
        arguments["optimizer"] = _new_optimizer(keras.optimizers.get(optimizer), learning_rate)
    copy.compile(**arguments)


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
