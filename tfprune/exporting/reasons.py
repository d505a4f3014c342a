"""Which operators of a quantized file compute in float, and why."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tfprune.exporting.modes import MODES
from tfprune.tflite.unpacking import TFLiteFile, operator_name, type_name

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "DENSIFY")
# Fewer weights than this are not worth it to the converter; the option has no public name.
_SMALLEST_DYNAMIC_KERNEL = 1024


@dataclass(frozen=True)
class FloatOperator:
    """An operator that computes in float in a file that should compute in integers, how often, and why.

    Attributes:
        name: The operator, as the format calls it.
        count: How many of it are in the file.
        reason: Why.
    """

    name: str
    count: int
    reason: str


def float_operators(
    file: TFLiteFile, quantize: str | None, layers: Mapping[str, str] = MappingProxyType({})
) -> tuple[FloatOperator, ...]:
    """Return the operators left in float, without the conversions before and after them.

    Args:
        file: The file.
        quantize: The mode.
        layers: Why layers were meant to stay in float, by their names.

    Returns:
        One entry per operator and reason. None for modes that compute in float by design; for `"dynamic"`, operators
        whose kernel stayed in float.
    """
    if not MODES[quantize].is_integer and quantize != "dynamic":
        return ()
    model = file.model
    found: Counter[tuple[str, str]] = Counter()
    for graph in model.subgraphs:
        makers = {int(index): each for each in graph.operators or [] for index in each.outputs}
        for operator in graph.operators or []:
            reason = _reason(model, graph, operator, makers, quantize)
            if reason:
                constants = [
                    index for index in operator.inputs if index >= 0 and _is_constant(model, graph, int(index))
                ]
                shown = [graph.tensors[index] for index in [*operator.outputs, *constants]]
                named = {part for tensor in shown for part in _layer_names(tensor)}
                reason = next((f"{layer}: {why}" for layer, why in layers.items() if layer in named), reason)
                found[operator_name(model, operator), reason] += 1
    return tuple(FloatOperator(name, count, reason) for (name, reason), count in found.items())


def _layer_names(tensor: Any) -> list[str]:
    """The converter names a tensor after the layers that it comes from, with numbers behind where they were taken."""
    return [re.sub(r"(?<=.)_1$", "", part) for part in re.split("[/;:]", tensor.name.decode())]


def _reason(file: Any, graph: Any, operator: Any, makers: dict[int, Any], quantize: str | None) -> str:
    if operator_name(file, operator) in _CONVERSIONS:
        return ""
    if quantize == "dynamic":
        return _dynamic_reason(file, graph, operator)
    used = [int(index) for index in [*operator.inputs, *operator.outputs] if index >= 0]
    if not any(_is_float(graph, index) for index in used):
        return ""
    read = [int(index) for index in operator.inputs if index >= 0 and _is_float(graph, int(index))]
    if read and all(_is_constant(file, graph, index) for index in read):
        return "it reads nothing but constants, which the converter quantizes only behind it"
    before = {operator_name(file, makers[index]) for index in read if index in makers} - set(_CONVERSIONS)
    if before:
        return f"it follows {' and '.join(sorted(before))}, which stays in float"
    read_by_any = {int(index) for each in graph.operators for index in each.inputs} | {int(i) for i in graph.outputs}
    if not read_by_any.issuperset(int(index) for index in operator.outputs):
        return "one of its results is used by nothing, so that no range was measured for it"
    activations = "int16" if quantize == "int16x8" else "int8"
    return f"TensorFlow's converter has no {activations} form of it"


def _dynamic_reason(file: Any, graph: Any, operator: Any) -> str:
    if len(operator.inputs) < 2 or operator.inputs[1] < 0:
        return ""
    index = int(operator.inputs[1])
    kernel = graph.tensors[index]
    if not _is_constant(file, graph, index) or not _is_float(graph, index) or len(kernel.shape) < 2:
        return ""
    num_weights = math.prod(int(size) for size in kernel.shape)
    if num_weights < _SMALLEST_DYNAMIC_KERNEL:
        return f"its kernel has fewer than {_SMALLEST_DYNAMIC_KERNEL} weights, too few to be worth it to the converter"
    return "TensorFlow's converter has no form of it that quantizes at run time"


def _is_constant(file: Any, graph: Any, index: int) -> bool:
    data = file.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def _is_float(graph: Any, index: int) -> bool:
    return "float" in type_name(graph.tensors[index])
