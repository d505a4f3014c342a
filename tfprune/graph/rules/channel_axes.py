"""Helpers of the rules: where the channels stand in a tensor."""

from collections.abc import Sequence

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


def varying_axes(channels: np.ndarray) -> list[int]:
    """Return the axes, counted from the end (-1, -2, ...), along which there is more than one channel."""
    return [axis - channels.ndim for axis, size in enumerate(channels.shape) if size > 1]


def resized(shape: Sequence[int | None], channels: np.ndarray, alive: np.ndarray) -> tuple[int | None, ...]:
    """Return a shape, which may leave sizes open (-1 or `None`), for the channels that stay.

    Args:
        shape: A shape with at least as many axes as the channels have.
        channels: Channel numbers of a tensor of this shape, which vary along one axis at most.
        alive: One bool per channel number.

    Returns:
        The shape with the size of the axis of the channels changed.
    """
    sizes = list(shape)
    for axis in varying_axes(channels) or _axis_of_one(sizes, channels, alive):
        if sizes[axis] not in (-1, None):
            sizes[axis] = int(alive[np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)[:, 0]].sum())
    return tuple(sizes)


def _axis_of_one(sizes: Sequence[int | None], channels: np.ndarray, alive: np.ndarray) -> list[int]:
    """Where a single channel lies that is to become several: on the last axis, or the only other one of size 1."""
    if channels.size != 1 or alive[channels.item()] <= 1:
        return []
    fitting = [axis for axis in range(-1, -channels.ndim - 1, -1) if sizes[axis] == 1]
    return fitting[:1]


def with_batch(channels: np.ndarray) -> np.ndarray:
    """Add the batch axis, for operations that count it."""
    return channels[None]


def without_batch(channels: np.ndarray) -> np.ndarray | None:
    """Take the first axis away again; `None` if channels have come to lie along it."""
    return channels[0] if channels.ndim and channels.shape[0] == 1 else None
