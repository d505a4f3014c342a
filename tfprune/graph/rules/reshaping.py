"""Layers that move elements without changing them."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.rules.axes import compress, known
from tfprune.graph.rules.registry import Alive, rule
from tfprune.graph.trace import Call


@rule(keras.layers.Flatten)
def _flatten(call: Call) -> np.ndarray | list[np.ndarray]:
    channels, shape = call.inputs[0], call.input_shapes[0]
    if call.layer.data_format == "channels_first" and len(shape) > 1:
        channels, shape = np.moveaxis(channels, 0, -1), (*shape[1:], shape[0])
    return reshape(call, channels, shape)


def resize_reshape(call: Call, config: dict[str, Any], alive: Alive) -> None:
    """Write the sizes that stay into the target shape of a Reshape layer."""
    config["target_shape"] = sizes_that_stay(call, alive)


@rule(keras.layers.Reshape, resize=resize_reshape)
def _reshape(call: Call) -> np.ndarray | list[np.ndarray]:
    return reshape(call, call.inputs[0], call.input_shapes[0])


@rule(keras.layers.Permute)
def _permute(call: Call) -> np.ndarray:
    return np.transpose(call.inputs[0], [axis - 1 for axis in call.layer.dims])


@rule(keras.layers.RepeatVector)
def _repeat_vector(call: Call) -> np.ndarray:
    return call.inputs[0][None]


def reshape(call: Call, channels: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray | list[np.ndarray]:
    """Follow channels of this shape into the output shape of a call.

    Where the channels come to lie along several axes, as in a channel shuffle, the same places along the last
    of them are tied, so that what stays is again a full array.
    """
    before, after = known(shape), known(call.output_shapes[0])
    if before is None or after is None:
        return call.give_up(f"{call.layer.name!r} reshapes axes of unknown size")
    channels = compress(np.broadcast_to(channels, before).reshape(after))
    if sum(size > 1 for size in channels.shape) > 1:
        last = max(axis for axis, size in enumerate(channels.shape) if size > 1)
        rows = np.moveaxis(channels, last, 0).reshape(channels.shape[last], -1)
        call.tie(rows[:, :1], rows)
    return channels


def sizes_that_stay(call: Call, alive: Alive) -> tuple[int, ...]:
    """Return the output shape of a call when only the channels alive stay."""
    channels, shape = call.outputs[0], known(call.output_shapes[0])
    stays = alive[channels]
    varying = [axis for axis, size in enumerate(channels.shape) if size > 1]
    sizes = list(shape or ())
    if varying:
        sizes[varying[-1]] = int(np.moveaxis(stays, varying[-1], 0).reshape(stays.shape[varying[-1]], -1)[:, 0].sum())
    return tuple(sizes)
