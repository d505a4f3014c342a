"""BatchNormalization as numbers: scale and shift of each channel, and weights that have both in them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import Node


def scale_and_shift(node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Return what a layer that works on each channel by itself multiplies with, and what it adds.

    Args:
        node: A call of a `BatchNormalization`, `Normalization`, `Rescaling` or `LayerScale`.

    Returns:
        Two arrays, float64, one number per channel.

    Example:

    >>> from tfprune.graph import walk
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(0.5, offset=1.0)])
    >>> [values.tolist() for values in scale_and_shift(next(walk(model)))]
    [[0.5, 0.5], [1.0, 1.0]]
    """
    layer: Any = node.operation
    channels = node.inputs[0].shape[-1]
    if isinstance(layer, keras.layers.BatchNormalization):
        return _normalization(layer)
    if isinstance(layer, keras.layers.Rescaling):
        parts = (layer.scale, layer.offset)
    elif isinstance(layer, keras.layers.Normalization):
        scale, mean = 1 / np.maximum(np.sqrt(_numbers(layer.variance)), keras.config.epsilon()), _numbers(layer.mean)
        parts = (1 / scale, mean) if layer.invert else (scale, -mean * scale)
    else:
        parts = (_numbers(layer.gamma), 0.0)
    scale, shift = (np.broadcast_to(np.squeeze(np.asarray(part, np.float64)), (channels,)) for part in parts)
    return scale, shift


def _normalization(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    scale = 1 / np.sqrt(_numbers(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * _numbers(layer.gamma)
    shift = -_numbers(layer.moving_mean) * scale
    return scale, shift + _numbers(layer.beta) if layer.center else shift


def folded_weights(layer: Any, normalization: Node, channel_axes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel and bias of a layer that computes what it and the normalization behind it do at inference.

    Args:
        layer: A convolution or `Dense`, built.
        normalization: The call of the `BatchNormalization`.
        channel_axes: The axes of the kernel, negative, along which the channels of the output lie; none for the last.

    Returns:
        Kernel and bias, float32.
    """
    scale, shift = scale_and_shift(normalization)
    kernel = _numbers(layer.kernel)
    channels = channel_axes or (-1,)  # Dense has one scale, but channels all the same
    shape = [size if axis - kernel.ndim in channels else 1 for axis, size in enumerate(kernel.shape)]
    bias = shift + (_numbers(layer.bias) * scale if layer.use_bias else 0.0)
    return (kernel * scale.reshape(shape)).astype(np.float32), bias.astype(np.float32)


def _numbers(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
