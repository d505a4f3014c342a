"""Scales that no runtime computes with, found by reading a `.tflite` file."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.tflite.unpacking import operator_name

RATIO_LIMIT = 256
"""XNNPACK refuses an operator whose scale of inputs x scale of weights / scale of outputs is as large, or aborts."""

_DOUBTFUL_SCALE = 2.0**-24
"""Below this some kernels abort: softmax at 2**-26, an addition where its inputs' scale is 2**19 times the output's."""


@dataclass(frozen=True)
class Operands:
    """Where an operator with a kernel has its operands.

    Attributes:
        data: Which of its inputs is the data.
        axis: The axis of the kernel along which each position may have a scale of its own.
        bias: Which of its inputs is the bias, if there is one.
        weights: Which of its inputs is the kernel.
    """

    data: int
    axis: int
    bias: int
    weights: int = 1


KERNELS = {
    "CONV_2D": Operands(0, 0, 2),
    "DEPTHWISE_CONV_2D": Operands(0, 3, 2),
    "FULLY_CONNECTED": Operands(0, 0, 2),
    "TRANSPOSE_CONV": Operands(2, 0, 3),
    "CONV_3D": Operands(0, 4, 2),
    "CONV_3D_TRANSPOSE": Operands(2, 3, 3),
}
"""The operators that sum products with a kernel."""


@dataclass(frozen=True)
class KernelScales:
    """The scales of one operator with a kernel.

    Attributes:
        operator: Its name in the schema.
        output: The name of the tensor that it makes, which tells the layer.
        ratios: Scale of inputs x scale of weights / scale of outputs, one per channel or one for all.
    """

    operator: str
    output: str
    ratios: np.ndarray


def kernel_scales(model: Any) -> Iterator[KernelScales]:
    """Yield the scales of every quantized operator with a kernel.

    Args:
        model: An unpacked file.
    """
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            name = operator_name(model, operator)
            if name not in KERNELS:
                continue
            operands = KERNELS[name]
            if len(operator.inputs) <= operands.weights or not operator.outputs:
                continue  # no runtime takes it
            output = graph.tensors[operator.outputs[0]]
            used = [graph.tensors[operator.inputs[index]] for index in (operands.data, operands.weights)]
            data, weights, made = (scales_of(tensor) for tensor in (*used, output))
            if data is not None and weights is not None and made is not None:
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    ratios = data[0].astype(np.float64) * weights / made[0]
                yield KernelScales(name, output.name.decode(errors="replace"), ratios)


def is_doubtful(model: Any) -> bool:
    """Return whether a runtime might refuse the file for its scales, or abort the process.

    Args:
        model: An unpacked file.
    """
    if any(not scales.ratios.max() < RATIO_LIMIT for scales in kernel_scales(model)):
        return True
    for graph in model.subgraphs:
        made = {int(index) for operator in graph.operators or [] for index in operator.outputs if index >= 0}
        found = [scales_of(graph.tensors[index]) for index in made]
        if any(scales is not None and scales.min() < _DOUBTFUL_SCALE for scales in found):
            return True
    return False


def scales_of(tensor: Any) -> np.ndarray | None:
    """Return the scales of a tensor, one or one per channel; `None` if it holds real numbers."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or not len(quantization.scale):
        return None
    return np.asarray(quantization.scale)
