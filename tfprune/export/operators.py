"""What is inside a `.tflite` file: its operators and the zeros of its kernels, by the public schema."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPE_NAMES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_KERNEL_DTYPES = {"float32": np.float32, "float16": np.float16, "int8": np.int8}


@dataclass(frozen=True)
class OperatorCount:
    """How often one operator occurs; `dtype` is a float type if any tensor it reads or writes is one."""

    name: str
    dtype: str
    count: int


def count_operators(content: bytes) -> tuple[OperatorCount, ...]:
    """Return the operators of all graphs in a `.tflite` file, most frequent first.

    Args:
        content: The file's bytes.

    Returns:
        One entry per operator and dtype.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    counts: Counter[tuple[str, str]] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            name = _operator_name(model, operator)
            tensors = [graph.tensors[i] for i in [*operator.outputs, *operator.inputs] if i >= 0]
            types = [_type_name(tensor) for tensor in tensors]
            counts[name, next((kind for kind in types if "float" in kind), types[0])] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OperatorCount(name, dtype, count) for (name, dtype), count in ordered)


def zero_fraction(content: bytes) -> float:
    """Return the fraction of exact zeros among the stored kernels (constants of two or more axes).

    Args:
        content: The file's bytes.

    Returns:
        Between 0 and 1; 0 if the file has no kernels.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    zeros = entries = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            dtype = _KERNEL_DTYPES.get(_type_name(tensor))
            if data is None or not len(data) or dtype is None or len(tensor.shape) < 2:
                continue
            kernel = np.frombuffer(np.asarray(data, np.uint8).tobytes(), dtype)
            zeros += int(kernel.size - np.count_nonzero(kernel))
            entries += kernel.size
    return zeros / entries if entries else 0.0


def output_scales(content: bytes) -> dict[int, float]:
    """Return the steps behind the float outputs of an int8 file: the scale of what is dequantised there.

    Args:
        content: The file's bytes.

    Returns:
        Scale by index of the output tensor; outputs that are not dequantised are left out.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    scales = {}
    for operator in graph.operators or []:
        if operator.outputs[0] not in graph.outputs or _operator_name(model, operator) != "DEQUANTIZE":
            continue
        quantization = graph.tensors[operator.inputs[0]].quantization
        if quantization is not None and quantization.scale is not None:  # None where float16 becomes float32
            scales[int(operator.outputs[0])] = float(quantization.scale[0])
    return scales


def _operator_name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    # Files for old runtimes keep small codes in the older, 8-bit field; the schema says: take the larger.
    name = _OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return code.customCode.decode() if name == "CUSTOM" else name


def _type_name(tensor: Any) -> str:
    return _TYPE_NAMES[tensor.type]
