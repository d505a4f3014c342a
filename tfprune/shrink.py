"""Remove dead channels: a new, plain Keras model with the same outputs."""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.graph import ChannelGroup, ChannelGroups, channel_groups
from tfprune.graph.rules import WIDTH
from tfprune.graph.walk import functional
from tfprune.selection import zero_channels

Kept = dict[int, dict[int, np.ndarray]]
"""For each variable (by id), the positions that stay on each axis that gets shorter."""


def shrink(model: keras.Model) -> keras.Model:
    """Remove every channel that is zero throughout, and return a smaller, plain Keras model.

    A channel is removed when all that makes and carries it is exactly zero: its slices of the kernels that
    make it, their biases, and the gamma and beta of the normalization that follows. Removing it then changes
    no output. The callbacks of tfprune leave channels in this state. Layer names, data types and compile
    settings (with a fresh optimizer) are kept; the result saves and loads without tfprune. The model itself is
    not changed. A layer whose channels are all dead keeps one.

    Args:
        model: A built Sequential or functional Keras model.

    Returns:
        A new model of the same class.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, cannot be read layer by layer, or its compile settings hold a custom
            object that cannot be found again by name.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)), keras.layers.Dense(3, "relu", name="hidden"), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.assign([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]])
    >>> small = shrink(model)
    >>> small.get_layer("hidden").units
    2
    """
    groups = channel_groups(model)
    kept = _kept_positions(groups)
    if not kept:
        _warn_nothing_dead(groups)
    return _rebuild(model, kept)


def _dead_channels(group: ChannelGroup) -> np.ndarray:
    dead = zero_channels(group.with_role("producer", "affine"), group.size)
    if dead.all():
        dead[0] = False
    return dead


def _kept_positions(groups: ChannelGroups) -> Kept:
    gone: dict[int, dict[int, np.ndarray]] = {}
    for group in groups.free:
        dead = _dead_channels(group)
        if not dead.any():
            continue
        for member in group.members:
            axes = gone.setdefault(id(member.variable), {})
            axes[member.axis] = axes.get(member.axis, False) | member.mark(dead)
    return {
        variable: {axis: np.flatnonzero(~mask) for axis, mask in axes.items() if mask.any()}
        for variable, axes in gone.items()
    }


def _rebuild(model: keras.Model, kept: Kept) -> keras.Model:
    pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []

    def resize(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = type(layer).from_config(_resized_config(layer, kept))
        pairs.append((layer, copy))
        return copy

    small = _clone(model, resize)
    for layer, copy in pairs:
        for variable, target in zip(layer.variables, copy.variables, strict=True):
            value = variable.numpy()
            for axis, positions in kept.get(id(variable), {}).items():
                value = np.take(value, positions, axis=axis)
            target.assign(value)
    return small


def _resized_config(layer: keras.layers.Layer, kept: Kept) -> dict[str, Any]:
    config = layer.get_config()
    width = WIDTH.get(type(layer))
    positions = kept.get(id(layer.kernel), {}).get(len(layer.kernel.shape) - 1) if width else None
    if positions is not None:
        config[width] = len(positions)
    return config


def _clone(model: keras.Model, clone_layer: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    """Clone with the input layers' names (clone_model names them after their tensors) and the compile settings."""
    copies: dict[int, keras.layers.Layer] = {}

    def copy(layer: keras.layers.Layer, arriving: Any = None) -> keras.layers.Layer:
        if id(layer) not in copies:
            nested = isinstance(layer, keras.Model)
            copies[id(layer)] = clone_onto(layer, _inputs(layer, arriving)) if nested else clone_layer(layer)
        return copies[id(layer)]

    def clone_onto(model: keras.Model, inputs: Any) -> keras.Model:
        if isinstance(model, keras.Sequential):
            return _clone_sequential(model, inputs, copy)
        # A nested model waits until it is called: only then is known how many channels arrive.
        return keras.models.clone_model(
            model,
            inputs,
            clone_function=lambda layer: layer if isinstance(layer, keras.Model) else copy(layer),
            call_function=lambda layer, *args, **kwargs: (
                copy(layer, args[0]) if isinstance(layer, keras.Model) else layer
            )(*args, **kwargs),
        )

    with keras.saving.custom_object_scope(_compile_objects(model)):
        return clone_onto(model, _inputs(model, model.inputs))


def _clone_sequential(
    model: keras.Sequential, inputs: keras.KerasTensor, copy: Callable[..., keras.layers.Layer]
) -> keras.Sequential:
    layers: list[keras.layers.Layer] = []
    for layer in model.layers:
        arriving = (
            keras.Sequential([inputs, *layers], name=model.name).outputs if isinstance(layer, keras.Model) else None
        )
        layers.append(copy(layer, arriving or [inputs]))
    small = keras.Sequential([inputs, *layers], name=model.name, trainable=model.trainable)
    if model.compiled:
        small.compile_from_config(model.get_compile_config())
    return small


def _inputs(model: keras.Model, arriving: Any) -> Any:
    """New inputs like those of a model, as wide as the tensors that arrive."""
    layers = [layer for layer in functional(model).layers if isinstance(layer, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    tensors = [
        keras.Input(
            batch_shape=[new if old is not None else None for old, new in zip(tensor.shape, wide.shape, strict=True)],
            dtype=tensor.dtype,
            name=names[id(tensor)],
        )
        for tensor, wide in zip(model.inputs, keras.tree.flatten(arriving), strict=True)
    ]
    return tensors[0] if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, tensors)


def _compile_objects(model: keras.Model) -> dict[str, Any]:
    """The user's own losses, metrics and optimizer by name, so that Keras finds them when it compiles the copy."""
    if not model.compiled:
        return {}
    # Private: the arguments as given to compile(); the public get_compile_config() has only their names.
    # tests/test_shrink.py compiles with a local function and fails when it moves.
    arguments = keras.tree.flatten(model._compile_config.config)
    named = [item if hasattr(item, "__name__") else type(item) for item in arguments if item is not None]
    return {item.__name__: item for item in named if not item.__module__.startswith(("keras.", "builtins"))}


def _warn_nothing_dead(groups: ChannelGroups) -> None:
    masked = sum(int(zero_channels(group.producers, group.size).sum()) for group in groups)
    hint = (
        f"{masked} channels have zero kernels but a bias, gamma or beta that is not zero, or lie in frozen groups: "
        "see print(tfprune.channel_groups(model))."
        if masked
        else "Prune it first, for example with model.fit(..., callbacks=[tfprune.callbacks.FPGM(0.4)])."
    )
    warnings.warn(f"No channel of the model is dead, so the copy has the same size. {hint}", stacklevel=3)
