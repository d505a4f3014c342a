"""Kernels with many zeros, stored as the other values and their positions."""

from typing import Any

import keras
import numpy as np

from tfprune.exporting.stored_kernels import dense
from tfprune.parts.kernels import kernels
from tfprune.tflite.unpacking import ITEM_BYTES, TFLiteFile, operator_name, pack, type_name

# The converter leaves kernels with fewer zeros dense: the positions would take what the zeros leave.
_FEWEST_ZEROS = 0.5
# What the operator that unpacks a kernel takes, with its tensor and their names; measured, and rounded up.
_OPERATOR_BYTES = 512


def check_zeros(model: keras.Model) -> None:
    """Raise, before anything is converted, if no kernel has enough zeros.

    Args:
        model: The model.

    Raises:
        ValueError: If fewer than half of the weights of every kernel are zero.
    """
    shares = [float(np.mean(keras.ops.convert_to_numpy(kernel.variable) == 0)) for kernel in kernels(model)]
    if max(shares, default=0.0) < _FEWEST_ZEROS:
        raise ValueError(
            f"sparse=True cannot help: at most {max(shares, default=0.0):.0%} of the weights of a kernel are zero. "
            "Storing positions pays from about 50% in float, and 55% to 70% in int8. Prune more, or leave it out."
        )


def finish_sparse(file: TFLiteFile) -> TFLiteFile:
    """Return a sparse file in which only kernels are sparse that LiteRT runs, and that are smaller for it.

    XNNPACK, the default on all CPUs, refuses an int8 Dense kernel that is stored sparse (LiteRT 2.3).

    Args:
        file: A file from the converter.

    Returns:
        The file.

    Raises:
        ValueError: If nothing is left that is smaller.
    """
    changed = file.editable()
    graph = changed.subgraphs[0]
    for unpacking in [each for each in graph.operators if operator_name(changed, each) == "DENSIFY"]:
        source = graph.tensors[unpacking.inputs[0]]
        if _is_refused(changed, graph, unpacking) or _saved_bytes(changed, source) <= 0:
            _make_dense(changed, graph, unpacking)
    if not any(tensor.sparsity is not None for tensor in graph.tensors):
        raise ValueError(
            "sparse=True cannot help: no kernel of this file gets smaller by it. Int8 kernels of Dense layers are "
            "always stored dense, as LiteRT 2.3 refuses sparse ones, and small kernels have too little to save. "
            "Leave it out; zeros are small in a compressed download anyway (`gzip_bytes` of the report)."
        )
    return TFLiteFile(pack(changed))


def _is_refused(file: Any, graph: Any, unpacking: Any) -> bool:
    readers = [each for each in graph.operators if unpacking.outputs[0] in each.inputs]
    dense_layers = any(operator_name(file, each) == "FULLY_CONNECTED" for each in readers)
    return dense_layers and type_name(graph.tensors[unpacking.outputs[0]]) == "int8"


def _saved_bytes(file: Any, tensor: Any) -> float:
    vectors = [
        vector.values
        for level in tensor.sparsity.dimMetadata
        for vector in (level.arraySegments, level.arrayIndices)
        if vector is not None
    ]
    stored = len(file.buffers[tensor.buffer].data) + sum(np.asarray(values).nbytes for values in vectors)
    quantization = tensor.quantization
    scales = [] if quantization is None else [quantization.scale, quantization.zeroPoint]
    repeated = sum(np.asarray(values).nbytes for values in scales if values is not None)  # for the unpacked kernel
    return float(np.prod(tensor.shape)) * ITEM_BYTES[type_name(tensor)] - stored - repeated - _OPERATOR_BYTES


def _make_dense(file: Any, graph: Any, unpacking: Any) -> None:
    """Store a kernel as it was, and take out the operator that would unpack it."""
    source, unpacked = int(unpacking.inputs[0]), unpacking.outputs[0]
    tensor = graph.tensors[source]
    buffer = file.buffers[tensor.buffer]
    buffer.data = np.frombuffer(dense(tensor, buffer.data).tobytes(), np.uint8)
    tensor.sparsity = None
    graph.operators.remove(unpacking)
    for operator in graph.operators:
        operator.inputs = [source if index == unpacked else index for index in operator.inputs]
