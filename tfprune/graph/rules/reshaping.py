"""Layers that move elements without changing them."""

import math
from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call, Shape
from tfprune.graph.rules.channel_axes import compress, resized, varying_axes
from tfprune.graph.rules.registry import Alive, rule

layers = keras.layers


@rule(layers.Flatten)
def _flatten(call: Call) -> np.ndarray | list[np.ndarray]:
    channels, shape = call.inputs[0], call.input_shapes[0]
    if call.layer.data_format == "channels_first" and len(shape) > 1:
        channels, shape = np.moveaxis(channels, 0, -1), (*shape[1:], shape[0])
    return reshape(call, channels, shape, call.output_shapes[0])


def resize_reshape(call: Call, config: dict[str, Any], alive: Alive) -> None:
    """Write the sizes that stay into the target shape of a Reshape layer."""
    config["target_shape"] = resized(config["target_shape"], call.outputs[0], alive)


@rule(layers.Reshape, resize=resize_reshape)
def _reshape(call: Call) -> np.ndarray | list[np.ndarray]:
    channels = reshape(call, call.inputs[0], call.input_shapes[0], call.output_shapes[0])
    return call.same_as_before(channels) if isinstance(channels, np.ndarray) else channels


@rule(layers.Permute)
def _permute(call: Call) -> np.ndarray:
    return np.transpose(call.inputs[0], [axis - 1 for axis in call.layer.dims])


@rule(layers.RepeatVector)
def _repeat_vector(call: Call) -> np.ndarray:
    return call.inputs[0][None]


def reshape(call: Call, channels: np.ndarray, before: Shape, after: Shape) -> np.ndarray | list[np.ndarray]:
    """Follow channels of a tensor of one shape into another shape.

    Axes of unknown size may lie in front of those that the channels vary along. Where the channels come to lie
    along several axes, as in a channel shuffle or in attention heads, the same places along the last of them are
    tied, so that what stays is again a full array; the channels of the first row then stand for all rows.
    """
    varying = varying_axes(channels)
    if not varying:
        return channels.reshape((1,) * len(after)) if channels.size == 1 else channels
    tails = _equal_tails(before, after, -varying[0])
    if tails is None:
        return call.give_up(f"{call.layer.name!r} reshapes channels together with axes of unknown size")
    old, new = tails
    inner = np.broadcast_to(channels.reshape(channels.shape[-len(old) :]), old).reshape(new)
    inner = compress(inner)
    if len(varying_axes(inner)) > 1:
        call.constants_vary = True  # each row has its own
        last = varying_axes(inner)[-1]
        rows = np.moveaxis(inner, last, 0).reshape(inner.shape[last], -1)
        call.tie(rows[:, :1], rows)
        inner = rows[:, 0].reshape([-1 if axis - inner.ndim == last else 1 for axis in range(inner.ndim)])
    return inner.reshape((1,) * (len(after) - inner.ndim) + inner.shape)


def _equal_tails(before: Shape, after: Shape, least: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shortest trailing axes of both shapes with the same number of elements; at least so many of the first."""
    ends = {math.prod(tail): tail for tail in reversed(_known_tails(after))}
    for tail in _known_tails(before):
        if len(tail) >= least and math.prod(tail) in ends:
            return tail, ends[math.prod(tail)]
    return None


def _known_tails(shape: Shape) -> list[tuple[int, ...]]:
    tails: list[tuple[int, ...]] = []
    for size in reversed(shape):
        if size is None:
            break
        tails.append((size, *(tails[-1] if tails else ())))
    return tails
