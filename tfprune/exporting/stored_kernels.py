"""The kernels of a `.tflite` file as dense arrays, however they are stored."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tfprune.tflite.nibbles import unpacked_nibbles
from tfprune.tflite.sparse_tensors import positions
from tfprune.tflite.unpacking import operator_name, type_name

_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8, "int4": np.int8}


def stored_kernels(file: Any) -> Iterator[np.ndarray]:
    """Yield the kernels of an unpacked file: its constants of two or more axes, in the numbers that are stored.

    Quantized kernels are symmetric, so that a stored zero is a zero. One in blocks has the shape in which it is read.
    """
    for graph in file.subgraphs:
        forms = _forms(file, graph)
        for index, tensor in enumerate(graph.tensors):
            data = file.buffers[tensor.buffer].data
            if data is None or not len(data) or type_name(tensor) not in _DTYPES or len(tensor.shape) < 2:
                continue
            yield dense(tensor, data).reshape(forms.get(index, tensor.shape))


def _forms(file: Any, graph: Any) -> dict[int, Any]:
    """The shapes that constants have where they are read, if two operators unpack and reshape them before."""
    unpacked, forms = {}, {}
    for operator in graph.operators or []:
        name, source = operator_name(file, operator), int(operator.inputs[0]) if len(operator.inputs) else -1
        if name == "DEQUANTIZE":
            unpacked[int(operator.outputs[0])] = source
        elif name == "RESHAPE" and source in unpacked:
            forms[unpacked[source]] = graph.tensors[operator.outputs[0]].shape
    return forms


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
    values = unpacked_nibbles(stored) if kind == "int4" else np.frombuffer(stored.tobytes(), _DTYPES[kind])
    if tensor.sparsity is None:
        return values[: int(np.prod(shape))].reshape(shape)
    result = np.zeros(shape, values.dtype)
    result[positions(tensor.sparsity, shape)] = values
    return result
