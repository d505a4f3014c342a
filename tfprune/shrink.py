"""Remove dead channels: a new, plain Keras model with the same outputs."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.folding import fold_constants, probe_inputs
from tfprune.graph import Analysis, analyse, find_rule
from tfprune.graph.liveness import dead_labels
from tfprune.selection import zero_channels

RESIDUAL = 1e-4
"""A larger difference from the masked model, relative to its largest output, is told to the user."""


def shrink(model: keras.Model, *, approximate: bool = False) -> keras.Model:
    """Remove every channel that carries no information, and return a smaller, plain Keras model.

    A channel is removed when, wherever it is read, it is zero (its kernel slices, biases, gamma and beta are
    zero, as the callbacks of tfprune leave them) or the same constant for every input (gamma is zero but beta
    is not, or the activation does not map zero to zero). Zeros are removed exactly. Constants are folded into
    the bias of the layer that reads them, which is exact but for the borders of padded convolutions; a
    difference that can be measured is told in a warning.

    Layer names, data types and compile settings (with a fresh optimizer) are kept; the result saves and loads
    without tfprune. The model itself is not changed. Every layer keeps at least one channel.

    Args:
        model: A built Sequential or functional Keras model.
        approximate: Remove dead channels also where a layer mixes them with others (LayerNormalization,
            softmax over channels), which changes the outputs.

    Returns:
        A new model of the same class.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)), keras.layers.Dense(3, "relu", name="hidden"), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.assign([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]])
    >>> small = shrink(model)
    >>> small.get_layer("hidden").units
    2
    """
    analysis = analyse(model, approximate=approximate)
    dead = dead_labels(analysis.trace, analysis.labels)
    removed = [group.labels[group.keep_one_each(dead[group.labels])] for group in analysis.groups.free]
    if not any(labels.size for labels in removed):
        _warn_nothing_dead(analysis)
    return remove_channels(model, analysis, np.concatenate([np.zeros(0, int), *removed]))


def remove_channels(model: keras.Model, analysis: Analysis, removed: np.ndarray) -> keras.Model:
    """Build a copy of a model without these channels, which must be dead.

    Args:
        model: The model.
        analysis: Its analysis; see `tfprune.graph.analyse`.
        removed: Labels of dead channels in free groups.

    Returns:
        A new model; `model` is not changed.
    """
    alive = analysis.alive(removed)
    biases = fold_constants(model, analysis, alive)
    small = _rebuild(model, analysis, alive, biases)
    if biases or analysis.trace.approximate:
        _warn_residual(model, small)
    return small


def _rebuild(model: keras.Model, analysis: Analysis, alive: np.ndarray, biases: dict[int, np.ndarray]) -> keras.Model:
    calls = {id(call.layer): call for call in reversed(analysis.trace.calls)}
    pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def resize(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        rule = find_rule(layer)
        if rule is not None and rule.resize is not None:
            rule.resize(calls[id(layer)], config, alive)
        if id(layer) in biases:
            config["use_bias"] = True
        copy = type(layer).from_config(config)
        if isinstance(layer, keras.layers.Layer):
            pairs.append((layer, copy))
        return copy

    small = _clone(model, resize)
    for layer, copy in pairs:
        _copy_weights(layer, copy, analysis, alive, biases.get(id(layer)))
    return small


def _copy_weights(
    layer: keras.layers.Layer,
    copy: keras.layers.Layer,
    analysis: Analysis,
    alive: np.ndarray,
    bias: np.ndarray | None,
) -> None:
    targets = [variable for variable in copy.variables if bias is None or variable is not copy.bias]
    sources = [variable for variable in layer.variables if bias is None or variable is not layer.bias]
    for variable, target in zip(sources, targets, strict=True):
        value = variable.numpy()
        for axis in range(value.ndim):
            binding = analysis.trace.bindings.get((id(variable), axis))
            if binding is not None and not alive[binding.channels].all():
                value = value.compress(alive[binding.channels], axis=axis)
        target.assign(value)
    if bias is not None:
        made = analysis.trace.bindings[id(layer.kernel), len(layer.kernel.shape) - 1].channels
        copy.bias.assign(bias[alive[made]])


def _clone(model: keras.Model, clone_layer: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    """Clone with the input layers' names (clone_model names them after their tensors) and the compile settings."""
    inputs = None
    if not isinstance(model, keras.Sequential):
        names = {id(layer.output): layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer)}
        inputs = keras.tree.map_structure(
            lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=names[id(tensor)]),
            model.input,
        )
    with keras.saving.custom_object_scope(_compile_objects(model)):
        return keras.models.clone_model(model, inputs, clone_function=clone_layer, recursive=True)


def _compile_objects(model: keras.Model) -> dict[str, Any]:
    """The user's own losses, metrics and optimizer by name, so that Keras finds them when it compiles the copy."""
    if not model.compiled:
        return {}
    # Private: the arguments as given to compile(); the public get_compile_config() has only their names.
    # tests/test_shrink.py compiles with a local function and fails when it moves.
    arguments = keras.tree.flatten(model._compile_config.config)
    named = [item if hasattr(item, "__name__") else type(item) for item in arguments if item is not None]
    return {item.__name__: item for item in named if not item.__module__.startswith(("keras.", "builtins"))}


def _warn_nothing_dead(analysis: Analysis) -> None:
    masked = sum(int(zero_channels(group.producers, group.size).sum()) for group in analysis.groups)
    hint = (
        f"{masked} channels have zero kernels, but they are frozen or read where their constants cannot be folded: "
        "see print(tfprune.channel_groups(model))."
        if masked
        else "Prune it first, for example with model.fit(..., callbacks=[tfprune.callbacks.FPGM(0.4)])."
    )
    warnings.warn(f"No channel of the model is dead, so the copy has the same size. {hint}", stacklevel=3)


def _warn_residual(model: keras.Model, small: keras.Model) -> None:
    inputs = probe_inputs(model)
    before, after = (keras.tree.flatten(each(inputs, training=False)) for each in (model, small))
    residual = max(
        float(np.abs(b.numpy() - a.numpy()).max() / max(np.abs(b.numpy()).max(), 1e-30))
        for b, a in zip(before, after, strict=True)
    )
    if residual > RESIDUAL:
        warnings.warn(
            f"The smaller model is not exactly the masked one: on random input its outputs differ by up to "
            f"{residual:.2g} of the largest. Constants were folded into padded convolutions, where borders differ, "
            "or channels were removed from layers that mix them. Train a few epochs more, or recalibrate "
            "BatchNormalization.",
            stacklevel=4,
        )
