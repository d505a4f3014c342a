"""What tells a model or data from others, in a few characters, for the settings of a run."""

import hashlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from tfprune.drivers.batches import num_batches


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


def data_fingerprint(data: Any) -> dict[str, Any]:
    """Return what tells data from others: of arrays all, of datasets their form and length.

    Args:
        data: Arrays in a tuple, a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Returns:
        Plain values.
    """
    if isinstance(data, tuple):
        arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
        return {"samples": len(arrays[0]), "sha256": digest(arrays)}
    return {"batches": num_batches(data, 1), "form": str(getattr(data, "element_spec", type(data).__name__))}


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of arrays: their shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data if array.dtype.kind in "fiub" else array.tobytes())
    return found.hexdigest()
