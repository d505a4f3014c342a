"""What is inside a `.tflite` file: its operators and the zeros of its kernels, by the public schema."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tfprune.exporting.stored_kernels import stored_kernels
from tfprune.tflite.unpacking import TFLiteFile, operator_name, type_name


@dataclass(frozen=True)
class OperatorCount:
    """How often one operator occurs; `dtype` is a float type if any tensor it reads or writes is one."""

    name: str
    dtype: str
    count: int


def count_operators(file: TFLiteFile) -> tuple[OperatorCount, ...]:
    """Return the operators of all graphs in a `.tflite` file, most frequent first.

    Args:
        file: The file.

    Returns:
        One entry per operator and dtype.
    """
    model = file.model
    counts: Counter[tuple[str, str]] = Counter()
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            name = operator_name(model, operator)
            tensors = [graph.tensors[i] for i in [*operator.outputs, *operator.inputs] if i >= 0]
            types = [type_name(tensor) for tensor in tensors]
            counts[name, next((kind for kind in types if "float" in kind), types[0])] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(OperatorCount(name, dtype, count) for (name, dtype), count in ordered)


def min_runtime(file: TFLiteFile) -> str | None:
    """Return the oldest version of TensorFlow Lite that has all operators of a file, in the versions that it has.

    Args:
        file: A file.

    Returns:
        What the converter wrote into it, such as `"2.13.0"`; None if it did not.
    """
    model = file.model
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version" and 0 <= entry.buffer < len(model.buffers):
            data = model.buffers[entry.buffer].data
            return None if data is None else bytes(data).rstrip(b"\0").decode(errors="replace") or None
    return None


def integer_mode(operators: Iterable[OperatorCount]) -> str | None:
    """Return in which mode of `export` a file with such operators computes: it keeps no word of it.

    Args:
        operators: The operators of the file.

    Returns:
        `"int8"` or `"int16x8"`; None if it computes in float.
    """
    computing = {each.dtype for each in operators if each.name not in ("QUANTIZE", "DEQUANTIZE")}
    return next((mode for dtype, mode in (("int16", "int16x8"), ("int8", "int8")) if dtype in computing), None)


def zero_fraction(file: TFLiteFile) -> float:
    """Return the fraction of exact zeros among the stored kernels (constants of two or more axes).

    Args:
        file: The file.

    Returns:
        Between 0 and 1; 0 if the file has no kernels.
    """
    kernels = list(stored_kernels(file.model))
    entries = sum(kernel.size for kernel in kernels)
    zeros = entries - sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    return zeros / entries if entries else 0.0


def output_scales(file: TFLiteFile) -> dict[int, float]:
    """Return the steps behind the float outputs of an int8 file: the scale of what is dequantised there.

    Args:
        file: The file.

    Returns:
        Scale by index of the output tensor; outputs that are not dequantised are left out.
    """
    model = file.model
    graph = model.subgraphs[0]
    scales = {}
    for operator in graph.operators or []:
        if operator.outputs[0] not in graph.outputs or operator_name(model, operator) != "DEQUANTIZE":
            continue
        quantization = graph.tensors[operator.inputs[0]].quantization
        if quantization is not None and quantization.scale is not None:  # None where float16 becomes float32
            scales[int(operator.outputs[0])] = float(quantization.scale[0])
    return scales
