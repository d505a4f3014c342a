"""The kernels of a `.tflite` file as dense arrays, however they are stored."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfprune.tflite.sparse_tensors import positions
from tfprune.tflite.unpacking import type_name

_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": np.int8}


def stored_kernels(file: Any) -> Iterator[np.ndarray]:
    """Yield the kernels of an unpacked file: its constants of two or more axes, in the numbers that are stored.

    Quantized kernels are symmetric, so that a stored zero is a zero.
    """
    for graph in file.subgraphs:
        for tensor in graph.tensors:
            data = file.buffers[tensor.buffer].data
            if data is None or not len(data) or type_name(tensor) not in _DTYPES or len(tensor.shape) < 2:
                continue
            yield dense(tensor, data)


def dense(tensor: Any, data: Any) -> np.ndarray:
    """Return a constant as an array of its shape.

    Args:
        tensor: A tensor of an unpacked file.
        data: The bytes of its buffer, as an array.

    Returns:
        The values; zeros where a sparse tensor stores none.
    """
    kind, shape = type_name(tensor), tuple(int(size) for size in tensor.shape)
    stored = np.asarray(data, np.uint8)
    values = _nibbles(stored) if kind == "int4" else np.frombuffer(stored.tobytes(), _DTYPES[kind])
    if tensor.sparsity is None:
        return values[: int(np.prod(shape))].reshape(shape)
    result = np.zeros(shape, values.dtype)
    result[positions(tensor.sparsity, shape)] = values
    return result


def _nibbles(stored: np.ndarray) -> np.ndarray:
    """Two values a byte, the lower half first, in two's complement."""
    halves = np.stack([stored & 15, stored >> 4], axis=1).ravel().astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)
