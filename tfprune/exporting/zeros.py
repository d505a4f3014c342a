"""Which zeros of a Keras model are still zero in its file."""

from collections.abc import Iterator

import keras
import numpy as np

from tfprune.exporting.stored_kernels import stored_kernels
from tfprune.tflite.unpacking import TFLiteFile


def zeros_kept(model: keras.Model, file: TFLiteFile) -> float | None:
    """Return the share of the zero weights of a model that are zero in its file, weight by weight.

    Each kernel is compared with the stored one of its shape whose zeros are most like its own: a file keeps no names.

    Args:
        model: The Keras model.
        file: Its file.

    Returns:
        Between 0 and 1; None if the model has no zero weights, or the file none of the kernels that have some
        (recurrent layers are cut up).
    """
    stored = [np.squeeze(kernel) == 0 for kernel in stored_kernels(file.model)]
    zeros = kept = 0
    for kernel in _kernels(model):
        is_zero = kernel == 0
        if not is_zero.any():
            continue
        pairs = [
            (as_stored, other) for as_stored in _layouts(is_zero) for other in stored if as_stored.shape == other.shape
        ]
        if pairs:
            as_stored, best = max(pairs, key=lambda pair: float(np.mean(pair[0] == pair[1])))
            zeros += int(as_stored.sum())
            kept += int((as_stored & best).sum())
    return kept / zeros if zeros else None


def _kernels(model: keras.Model) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(each)) for each in model.weights if len(each.shape) > 1]


def _layouts(kernel: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a Keras kernel in the orders of axes in which a file may have it, without axes of size 1."""
    yield np.squeeze(kernel)
    yield np.squeeze(np.moveaxis(kernel, -1, 0))  # convolutions and Dense: outputs first
    if kernel.ndim > 2:
        yield np.squeeze(np.moveaxis(kernel, -2, 0))  # transposed convolutions
        yield np.squeeze(kernel.reshape(*kernel.shape[:-2], -1))  # depthwise convolutions with a multiplier
        yield kernel.reshape(kernel.shape[0], -1).T  # attention, as Dense: queries, keys and values
        yield kernel.reshape(-1, kernel.shape[-1]).T  # attention, as Dense: its output
