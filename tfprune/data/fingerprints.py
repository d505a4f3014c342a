"""What tells a model or arrays from others, in a few characters, for work that goes on where it was cut off."""

import hashlib
from collections.abc import Iterable

import keras
import numpy as np


def model_fingerprint(model: keras.Model) -> str:
    """Return a hash of a model's kinds of layers and its weights; names may differ from process to process.

    Args:
        model: A built model.

    Returns:
        64 hexadecimal digits.
    """
    classes = str([type(layer).__name__ for layer in model.layers]).encode()
    weights = digest(keras.ops.convert_to_numpy(weight) for weight in model.weights)
    return hashlib.sha256(classes + weights.encode()).hexdigest()


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of arrays: their shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data if array.dtype.kind in "fiub" else array.tobytes())
    return found.hexdigest()
