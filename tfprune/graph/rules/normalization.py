"""Normalization: by stored statistics, in groups or by squares (exact to prune), or around a mean (not exact)."""

import math
from typing import Any

import keras
import numpy as np

from tfprune.graph.kinds import find_kind
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import config_axis, on_axis
from tfprune.graph.rules.elementwise import bind_scale_and_shift
from tfprune.graph.rules.registry import Alive, Arguments, rule


def _select(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], alive: Alive) -> Arguments:
    """Take the channels that stay behind the layer, where it ends others."""
    axis = config_axis(call.layer.axis)
    arriving, leaving = call.along(call.inputs[0], axis), call.along(call.outputs[0], axis)
    if (alive[arriving] == alive[leaving]).all():
        return args, kwargs
    places = np.cumsum(alive[arriving]) - 1
    taken = keras.ops.take(args[0], places[alive[leaving]].tolist(), axis=call.layer.axis)
    return (taken, *args[1:]), kwargs


@rule(keras.layers.BatchNormalization, rearrange=_select)
def _batch_normalization(call: Call) -> np.ndarray:
    layer = call.layer
    arriving = call.along(call.inputs[0], config_axis(layer.axis))
    channels = call.cut(arriving)
    mean, *others = find_kind(layer).statistics
    # Without gamma, a zero input comes out as -mean/deviation, so a mask must cover the mean too.
    call.bind(getattr(layer, mean), 0, channels, "statistics" if layer.scale else "affine", "shift")
    for name in others:
        call.bind(getattr(layer, name, None), 0, channels, "statistics")
    bind_scale_and_shift(call, channels)
    if (channels == arriving).all():
        return call.inputs[0]
    return on_axis(channels, config_axis(layer.axis), rank=len(call.input_shapes[0]))


@rule(keras.layers.LayerNormalization)
def _layer_normalization(call: Call) -> np.ndarray | list[np.ndarray]:
    layer, channels = call.layer, call.inputs[0]
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if len(axes) != 1:
        return call.give_up(f"{layer.name!r} normalizes over several axes")
    axis = config_axis(axes[0])
    call.mix(channels, f"{layer.name!r} normalizes over its channels")
    bind_scale_and_shift(call, call.along(channels, axis))
    return channels


def _resize_groups(call: Call, config: dict[str, Any], alive: Alive) -> None:
    if call.layer.groups > 1:
        config["groups"] = round(call.layer.groups * _part_that_stays(call, alive))


@rule(keras.layers.GroupNormalization, resize=_resize_groups)
def _group_normalization(call: Call) -> np.ndarray | list[np.ndarray]:
    """Channels that are normalized together go together; a single group mixes all of them."""
    layer = call.layer
    along = call.along(call.inputs[0], config_axis(layer.axis))
    if layer.groups == 1:
        call.mix(along, f"{layer.name!r} normalizes over its channels")
    else:
        rows = along.reshape(layer.groups, -1)
        call.tie(rows[:, :1], rows)
    bind_scale_and_shift(call, along)
    return call.inputs[0]


@rule(keras.layers.UnitNormalization)
def _unit_normalization(call: Call) -> np.ndarray:
    call.read(call.inputs[0])  # zeros add nothing to the sum of squares
    return call.inputs[0]


def _part_that_stays(call: Call, alive: Alive) -> float:
    return float(alive[call.outputs[0]].mean())


def _resize_mean_square(call: Call, config: dict[str, Any], alive: Alive) -> None:
    if alive.dtype == bool:  # a model made anew has no weights that must go on computing the same
        config["epsilon"] = call.layer.epsilon / _part_that_stays(call, alive)


def _rescale_mean_square(call: Call, alive: Alive) -> dict[int, float]:
    return {id(call.layer.scale): 1 / math.sqrt(_part_that_stays(call, alive))}


@rule(keras.layers.RMSNormalization, resize=_resize_mean_square, rescale=_rescale_mean_square)
def _rms_normalization(call: Call) -> np.ndarray | list[np.ndarray]:
    """Zeros add nothing to the squares; that their mean is over fewer channels, scale and epsilon make up for."""
    layer, channels = call.layer, call.inputs[0]
    if len(layer.axis) != 1:
        return call.give_up(f"{layer.name!r} normalizes over several axes")
    call.read(channels)
    bind_scale_and_shift(call, call.along(channels, config_axis(layer.axis[0])))
    return channels
