"""Layers with several inputs: sums and products tie channels, a concatenation lines them up."""

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import compress, config_axis, varying_axes
from tfprune.graph.rules.registry import rule

layers = keras.layers


@rule(layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
def _sum(call: Call) -> np.ndarray | list[np.ndarray]:
    align_ranks(call)
    return merge(call)


@rule(layers.Multiply)
def _product(call: Call) -> np.ndarray | list[np.ndarray]:
    call.is_product = True
    align_ranks(call)
    return merge(call)


@rule(layers.Concatenate)
def _concatenate(call: Call) -> np.ndarray | list[np.ndarray]:
    return concatenate(call, config_axis(call.layer.axis))


def align_ranks(call: Call) -> None:
    """Give inputs of lower rank new axes after the batch, as merging layers do."""
    rank = max(len(shape) for shape in call.input_shapes)
    for index, shape in enumerate(call.input_shapes):
        ones = (1,) * (rank - len(shape))
        call.inputs[index] = call.inputs[index].reshape(ones + call.inputs[index].shape)
        call.input_shapes[index] = ones + tuple(shape)


def merge(call: Call) -> np.ndarray | list[np.ndarray]:
    """Tie the inputs of a call position by position, with broadcasting, and return the channels that come out."""
    if len({len(shape) for shape in call.input_shapes}) > 1:
        return call.give_up(f"{call.layer.name!r} merges tensors of different rank")
    spread = [spreads_over_channels(call, index) for index in range(len(call.inputs))]
    if any(spread) and not call.is_product:
        return call.give_up(f"{call.layer.name!r} combines one number with all channels")
    for index in np.flatnonzero(spread):
        call.freeze(call.inputs[index], f"{call.layer.name!r} multiplies all channels by it")
    tied = [channels for channels, alone in zip(call.inputs, spread, strict=True) if not alone]
    if len({axis for channels in tied for axis in varying_axes(channels)}) > 1:
        return call.give_up(f"{call.layer.name!r} combines channels along different axes")
    for other in tied[1:]:
        call.tie(tied[0], other)
    return np.broadcast_arrays(*tied)[0]


def spreads_over_channels(call: Call, index: int) -> bool:
    """Whether one input has a single number for all channels of another, as a spatial attention map has."""
    axes = [axis for other in call.inputs for axis in varying_axes(other)]
    shape = call.input_shapes[index]
    return any(-axis > len(shape) or shape[axis] == 1 for axis in axes)


def concatenate(call: Call, axis: int) -> np.ndarray | list[np.ndarray]:
    """Line up the inputs of a call along an axis, counted without the batch.

    Tensors joined along another axis than that of their channels, such as a class token and patches, must keep
    the same channels.
    """
    rank = len(call.input_shapes[0])
    axis = axis % rank - rank
    varying = {each for channels in call.inputs for each in varying_axes(channels)}
    if len(varying) > 1:
        return call.give_up(f"{call.layer.name!r} joins channels along different axes")
    if varying and varying != {axis}:
        call.constants_vary = True  # each tensor has its own
        for other in call.inputs[1:]:
            call.tie(call.inputs[0], other)
        return np.broadcast_arrays(*call.inputs)[0]
    parts = []
    for channels, shape in zip(call.inputs, call.input_shapes, strict=True):
        size = shape[axis]
        if size is None:
            if len({int(number) for each in call.inputs for number in each.ravel()}) > 1:
                return call.give_up(f"{call.layer.name!r} joins an axis of unknown size")
            return call.inputs[0]
        parts.append(np.broadcast_to(channels, [size if at == rank + axis else 1 for at in range(rank)]))
    return compress(np.concatenate(parts, axis=axis))
