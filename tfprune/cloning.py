"""A smaller copy of a model: its layers made anew from edited configs, with the weights that stay."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import Analysis, find_rule, functional
from tfprune.graph.rules.axes import resized
from tfprune.graph.walk import Shape

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
    calls = {id(call.layer): call for call in reversed(analysis.trace.calls)}
    views = analysis.trace.views
    pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
    factors: dict[int, float] = {}
    copies: dict[int, Any] = {}

    def sizes(layer: keras.layers.Layer) -> list[Shape]:
        entries = [analysis.trace.flows[flow] for flow in analysis.trace.entries[id(layer)]]
        return [resized(t.shape, e, alive) for t, e in zip(views[id(layer)].inputs, entries, strict=True)]

    def copy_of(layer: keras.layers.Layer) -> Any:
        if id(layer) not in copies:
            view = views.get(id(layer))
            copies[id(layer)] = resize(layer) if view is None else _clone(view, copy_of, call_of, sizes(layer))
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
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.layers.Layer):
            pairs.append((layer, copy))
        return copy

    small = _clone(model, copy_of, call_of, [tensor.shape for tensor in functional(model).inputs])
    for layer, copy in pairs:
        _copy_weights(layer, copy, analysis, alive, biases.get(id(layer)), factors)
    return small


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


def _tensors(arguments: Any) -> Any:
    tensors = [value for value in keras.tree.flatten(arguments) if isinstance(value, keras.KerasTensor)]
    return tensors if len(tensors) > 1 else tensors[0]


def _clone(model: keras.Model, copy_of: Copy, call_of: Copy, shapes: Sequence[Shape]) -> keras.Model:
    """Clone with the input layers' names (clone_model names them after their tensors) and the compile settings."""
    # A Sequential holds layers themselves; they take one tensor and nothing else.
    clone_layer = copy_of if isinstance(model, keras.Sequential) else call_of
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    inputs = [
        keras.Input(batch_shape=shape, dtype=tensor.dtype, name=names.get(id(tensor)))
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    if isinstance(model, keras.Sequential):
        packed = inputs[0] if inputs[0].shape != model.inputs[0].shape else None
    else:
        packed = keras.tree.pack_sequence_as(model.input, inputs)
    with keras.saving.custom_object_scope(compile_objects(model)):
        return keras.models.clone_model(model, packed, clone_function=clone_layer)


def compile_objects(model: keras.Model) -> dict[str, Any]:
    """Return the user's own losses, metrics and optimizer by name, so that Keras finds them when it compiles a copy."""
    if not model.compiled:
        return {}
    # Private: the arguments as given to compile(); the public get_compile_config() has only their names.
    # tests/test_shrink.py compiles with a local function and fails when it moves.
    arguments = keras.tree.flatten(model._compile_config.config)
    named = [item if hasattr(item, "__name__") else type(item) for item in arguments if item is not None]
    return {item.__name__: item for item in named if not item.__module__.startswith(("keras.", "builtins"))}
