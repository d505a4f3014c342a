"""What a `.tflite` file holds and costs to run: weights, nonzeros and multiply-accumulates, by the public schema."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from tfprune.tflite.unpacking import TFLiteFile, schema_name, type_name

Shapes: TypeAlias = list[tuple[int, ...]]

_NO_NUMBERS = ("string", "bool", "resource", "variant")
_INDICES = ("int32", "int64", "uint32", "uint64")  # weights only with a scale; else shapes and axes
_PACKED = {"int4": 4, "uint4": 4, "int2": 2}  # bits of each number

# What multiplies inside, but by a number of times or with a kernel that the operator's shapes do not tell.
_UNKNOWN = ("WHILE", "IF", "CUSTOM", "SVDF", "LSTM", "RNN", "STABLEHLO", "UNIDIRECTIONAL_", "BIDIRECTIONAL_")


class Costs(NamedTuple):
    """Weights, how many of them are not zero, and MACs for one sample; None for MACs that cannot be told."""

    parameters: int
    nonzeros: int
    macs: int | None


def file_costs(file: TFLiteFile) -> Costs:
    """Count the weights of a `.tflite` file and the multiply-accumulate operations (MACs) of one run.

    A weight is a stored number that the network computes with: kernels, biases, tables, also single constants; not
    shapes and axes. A tensor that is stored once counts once. A quantized weight is zero where it stands for zero.
    MACs are those of convolutions, dense layers and matrix products, as in `profile`.

    Args:
        file: The file.

    Returns:
        The counts. The MACs are None if the file has loops, branches, or operators of which they are not known.

    Example:

    >>> import keras, pathlib, tempfile
    >>> from tfprune.exporting import export
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.tflite"
    >>> _ = export(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)]), path)
    >>> file_costs(TFLiteFile.read(path))
    Costs(parameters=12, nonzeros=12, macs=12)
    """
    model = file.model
    weights = {tensor.buffer: _weights(model, tensor) for graph in model.subgraphs for tensor in graph.tensors}
    parameters = sum(count for count, _ in weights.values())
    nonzeros = sum(count for _, count in weights.values())
    return Costs(parameters, nonzeros, _macs(model))


def _weights(model: Any, tensor: Any) -> tuple[int, int]:
    """Return how many weights a tensor stores, and how many of them are not zero."""
    data, kind = model.buffers[tensor.buffer].data, type_name(tensor)
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    if data is None or not len(data) or kind in _NO_NUMBERS or (kind in _INDICES and not scaled):
        return 0, 0
    size, raw = math.prod(_shape(tensor)), np.asarray(data, np.uint8)
    if kind in _PACKED:
        bits = np.arange(0, 8, _PACKED[kind])
        stored = (raw[:, None] >> bits & (1 << _PACKED[kind]) - 1).ravel()[:size]
    else:
        stored = np.frombuffer(raw.tobytes(), tf.as_dtype(kind).as_numpy_dtype)
    points = {int(point) for point in quantization.zeroPoint} if scaled and quantization.zeroPoint is not None else {0}
    # Kernels have a zero point per tensor; where scales are per channel, the format wants all of them to be 0.
    return size, int(np.count_nonzero(stored != (points.pop() if len(points) == 1 else 0)))


def _macs(model: Any) -> int | None:
    total, graph = 0, model.subgraphs[0]
    for operator in graph.operators or []:
        name = schema_name(model, operator)
        if name.startswith(_UNKNOWN):
            return None
        if name in _COSTS:
            inputs = [_shape(graph.tensors[index]) if index >= 0 else () for index in operator.inputs]
            total += _COSTS[name](inputs, _shape(graph.tensors[operator.outputs[0]]), operator.builtinOptions)
    return total


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _convolution(inputs: Shapes, output: tuple[int, ...], options: Any) -> int:
    return math.prod(output[:-1]) * math.prod(inputs[1])


def _transposed_convolution(inputs: Shapes, output: tuple[int, ...], options: Any) -> int:
    return math.prod(inputs[2][:-1]) * math.prod(inputs[1])  # the first input is the output's shape


def _fully_connected(inputs: Shapes, output: tuple[int, ...], options: Any) -> int:
    return math.prod(inputs[0]) * inputs[1][0]


def _matrix_product(inputs: Shapes, output: tuple[int, ...], options: Any) -> int:
    return math.prod(output) * inputs[0][-2 if options.adjX else -1]


_COSTS: dict[str, Callable[[Shapes, tuple[int, ...], Any], int]] = {
    "CONV_2D": _convolution,
    "CONV_3D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "TRANSPOSE_CONV": _transposed_convolution,
    "CONV_3D_TRANSPOSE": _transposed_convolution,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _matrix_product,
}
