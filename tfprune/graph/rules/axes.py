"""Helpers of the rules: where the channels stand in a tensor."""

import keras
import numpy as np


def channel_axis(layer: keras.layers.Layer) -> int:
    """Return the channel axis of a layer with a data format, counted without the batch axis."""
    return 0 if layer.data_format == "channels_first" else -1


def config_axis(axis: int) -> int:
    """Return an axis from a layer's config, which counts the batch axis, counted without it."""
    return axis - 1 if axis > 0 else axis


def on_axis(channels: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Lay a one-dimensional array of channels along one axis of a tensor of this rank."""
    shape = [1] * rank
    shape[axis] = -1
    return channels.reshape(shape)


def known(shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Return the shape if every size in it is known, else `None`."""
    sizes = tuple(size for size in shape if size is not None)
    return sizes if len(sizes) == len(shape) else None


def compress(channels: np.ndarray) -> np.ndarray:
    """Reduce every axis along which the channels do not change to size 1."""
    for axis in range(channels.ndim):
        first = np.take(channels, [0], axis=axis)
        if (first == channels).all():
            channels = first
    return channels
