"""Layers with several inputs: sums and products tie channels, a concatenation lines them up."""

import keras
import numpy as np

from tfprune.graph.rules.axes import compress, config_axis
from tfprune.graph.rules.registry import rule
from tfprune.graph.trace import Call

layers = keras.layers


@rule(layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
def _sum(call: Call) -> np.ndarray | list[np.ndarray]:
    return merge(call)


@rule(layers.Multiply)
def _product(call: Call) -> np.ndarray | list[np.ndarray]:
    call.is_product = True
    return merge(call)


@rule(layers.Concatenate)
def _concatenate(call: Call) -> np.ndarray | list[np.ndarray]:
    return concatenate(call, config_axis(call.layer.axis))


def merge(call: Call) -> np.ndarray | list[np.ndarray]:
    """Tie the inputs of a call position by position, with broadcasting, and return the channels that come out."""
    if len({len(shape) for shape in call.input_shapes}) > 1:
        return call.give_up(f"{call.layer.name!r} merges tensors of different rank")
    tied = [channels for index, channels in enumerate(call.inputs) if not _spreads_over_channels(call, index)]
    for other in tied[1:]:
        call.tie(tied[0], other)
    return np.broadcast_arrays(*tied)[0]


def _spreads_over_channels(call: Call, index: int) -> bool:
    """Whether one input of a product is the same for all channels, as a spatial attention map is; it is kept."""
    shape = call.input_shapes[index]
    spreads = call.is_product and any(
        shape[axis] == 1 and other.shape[axis] > 1 for other in call.inputs for axis in range(len(shape))
    )
    if spreads:
        call.freeze(call.inputs[index], f"{call.layer.name!r} multiplies all channels by it")
    return spreads


def concatenate(call: Call, axis: int) -> np.ndarray | list[np.ndarray]:
    """Line up the inputs of a call along an axis."""
    axis %= len(call.input_shapes[0])
    parts = []
    for channels, shape in zip(call.inputs, call.input_shapes, strict=True):
        size = shape[axis]
        if size is None:
            return call.give_up(f"{call.layer.name!r} joins an axis of unknown size")
        parts.append(np.broadcast_to(channels, (*channels.shape[:axis], size, *channels.shape[axis + 1 :])))
    common = np.broadcast_shapes(*[(*part.shape[:axis], 1, *part.shape[axis + 1 :]) for part in parts])
    widened = [np.broadcast_to(part, (*common[:axis], part.shape[axis], *common[axis + 1 :])) for part in parts]
    return compress(np.concatenate(widened, axis=axis))
