"""BatchNormalization put into the weights before it."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.kinds import exact_kind
from tfprune.quantization.aware_layers import scale_and_shift


def per_channel(layer: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a layer multiplies each channel with at inference, and what it adds.

    Args:
        layer: A built `BatchNormalization`, `Normalization`, `Rescaling` or `LayerScale`.
        channels: The number of channels.

    Returns:
        Two float64 arrays of shape `(channels,)`.

    Example:

    >>> [values.tolist() for values in per_channel(keras.layers.Rescaling(0.5, offset=1.0), 2)]
    [[0.5, 0.5], [1.0, 1.0]]
    """
    scale, shift = (np.broadcast_to(_numbers(part), (channels,)) for part in scale_and_shift(layer))
    return scale, shift


def folded_weights(
    layer: Any, normalization: keras.layers.BatchNormalization, kernel: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel and bias of a layer that computes what it and the normalization behind it do at inference.

    Args:
        layer: A convolution or `Dense`, built.
        normalization: What works on its output.
        kernel: What it computes with in place of its kernel; `None` for that itself.

    Returns:
        Kernel and bias, float32.
    """
    scale, shift = (_numbers(part) for part in scale_and_shift(normalization))
    (axes,) = exact_kind(layer).kernels
    kernel = _numbers(axes.of(layer) if kernel is None else kernel)
    bias = shift + (_numbers(layer.bias) * scale if layer.use_bias else 0.0)
    return (kernel * axes.along_outputs(kernel, scale)).astype(np.float32), bias.astype(np.float32)


def _numbers(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
