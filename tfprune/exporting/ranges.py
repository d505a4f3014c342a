"""Ranges of a calibrated model that are too narrow to compute with, widened before the converter makes scales of them.

An activation that is zero for every sample, or nearly constant, has a range of no width, and the scale that follows
from it is one that no runtime computes with: `tflite.scales` has the limits. It is a range of the calibrated float
model that is changed, and not a scale of the finished file, so that the converter itself gives all tensors that must
share a scale the same one, and rounds biases to the scales that they will have.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from tfprune.tflite.scales import KERNELS, RATIO_LIMIT, kernel_scales
from tfprune.tflite.unpacking import TFLiteFile, operator_name, pack, type_name

_SHARING = {
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "PACK", "UNPACK"),
    *("CONCATENATION", "PAD", "PADV2", "MIRROR_PAD", "TILE", "GATHER", "GATHER_ND", "BROADCAST_TO", "REVERSE_V2"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REDUCE_MAX", "REDUCE_MIN"),
    *("MAXIMUM", "MINIMUM", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "SELECT_V2"),
}
"""Operators whose inputs and outputs have one scale."""

_LARGEST_BIAS = 2.0**30  # the converter scales weights up until no bias is larger
_LEAST = {"SOFTMAX": 2.0**-12, "LOG_SOFTMAX": 2.0**-12}
"""What the input of an operator is at least as wide as: softmax aborts below 2**-18, and flattens it."""
_FINER = 16  # a sixteenth of RATIO_LIMIT: steps a sixteenth of the unit of sums lose nothing
_LEAST_WIDTH = 2.0**-64  # of anything: the converter's 16-bit scales have no lower limit, and 1 over them is infinite


def widen_ranges(calibrated: bytes, num_levels: int) -> bytes:
    """Return a calibrated float model in which no range is too narrow to compute with.

    What sums whole numbers of a unit, the scale of its input times that of its weights, gets steps of a sixteenth of it
    or more where the numbers seen lie within one unit. What is seen to vary is left as it is.

    Args:
        calibrated: The converter's float model, whose tensors have the smallest and largest value seen.
        num_levels: How many values a tensor of the quantized file can have.

    Returns:
        The same model, or one with wider ranges.
    """
    model = TFLiteFile(calibrated).model
    widths = [_Widths(model, graph, num_levels - 1) for graph in model.subgraphs]
    changed = [each.widen() for each in widths]
    return pack(model) if any(changed) else calibrated


class _Widths:
    """The widths that the ranges of one graph must have."""

    def __init__(self, model: Any, graph: Any, num_steps: int) -> None:
        self.model, self.graph, self.num_steps = model, graph, num_steps
        self.least: dict[int, float] = {}
        self.kernels = {id(operator): _kernel(model, graph, operator) for operator in graph.operators or []}

    def widen(self) -> bool:
        """Change the ranges, and return whether any was too narrow."""
        self.least = dict.fromkeys(self._activations(range(len(self.graph.tensors))), _LEAST_WIDTH)
        new = True
        while new:  # what one operator asks for may be passed on by others, before it and behind
            new = sum(self._visit(operator) for operator in self.graph.operators or []) > 0
        narrow = [index for index, least in self.least.items() if self._measured(index) < least]
        for index in narrow:
            quantization = self.graph.tensors[index].quantization
            low = min(float(quantization.min[0]), 0.0)
            quantization.max = np.array([self.least[index] + low], np.float32)
        return bool(narrow)

    def width(self, index: int) -> float:
        return max(self._measured(index), self.least[index])

    def _measured(self, index: int) -> float:
        quantization = self.graph.tensors[index].quantization
        return max(float(quantization.max[0]), 0.0) - min(float(quantization.min[0]), 0.0)

    def _visit(self, operator: Any) -> bool:
        """Note what one operator asks for, and return whether that is new."""
        name = operator_name(self.model, operator)
        inputs, outputs = [*self._activations(operator.inputs)], [*self._activations(operator.outputs)]
        if name in _SHARING:
            tied = {*inputs, *outputs}
            return self._ask(tied, max((self.least[index] for index in tied), default=0.0))
        if name in _LEAST:
            return self._ask(inputs, _LEAST[name])
        if not outputs or not inputs:
            return False
        if name in KERNELS:
            return self._ask(outputs, self._of_kernel(operator, int(operator.inputs[KERNELS[name].data]), outputs[0]))
        if name in ("ADD", "SUB", "HARD_SWISH"):
            widths = [*map(self.width, inputs), *map(self._constant_width, operator.inputs)]
            return self._ask(outputs, max(widths) / _FINER)
        return False

    def _constant_width(self, index: int) -> float:
        """The width of the range that the converter gives a constant operand; 0 for what is computed."""
        values = _constant(self.model, self.graph, int(index))
        return 0.0 if values is None else float(max(values.max(), 0.0) - min(values.min(), 0.0))

    def _of_kernel(self, operator: Any, data: int, output: int) -> float:
        kernel = self.kernels[id(operator)]
        if kernel is None or data not in self.least:
            return 0.0
        largest, biases = kernel
        # As widths: as many units as the output has steps, which are as many as those of the input.
        units = np.maximum(self.width(data) * largest / 127, biases / _LARGEST_BIAS * self.num_steps)
        finest = units[largest > 0].min(initial=np.inf)
        return float(units.max()) / _FINER if self._measured(output) < finest < np.inf else 0.0

    def _ask(self, indices: Collection[int], least: float) -> bool:
        new = [index for index in indices if least > self.width(index)]
        self.least.update(dict.fromkeys(new, least))
        return bool(new)

    def _activations(self, indices: Any) -> Iterator[int]:
        for index in map(int, indices):
            if index >= 0 and type_name(self.graph.tensors[index]) == "float32":
                quantization = self.graph.tensors[index].quantization
                if quantization is not None and quantization.min is not None and len(quantization.min) == 1:
                    yield index


def _kernel(model: Any, graph: Any, operator: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """The largest weight for each scale, and the size of the bias there; `None` without a constant kernel."""
    name = operator_name(model, operator)
    if name not in KERNELS:
        return None
    operands = KERNELS[name]
    kernel = _constant(model, graph, operator.inputs[operands.weights])
    if kernel is None:
        return None
    others = tuple(axis for axis in range(kernel.ndim) if axis != operands.axis or name == "FULLY_CONNECTED")
    largest = np.abs(kernel).max(axis=others).reshape(-1).astype(np.float64)
    bias = _constant(model, graph, operator.inputs[operands.bias]) if len(operator.inputs) > operands.bias else None
    biases = np.zeros_like(largest) if bias is None else np.abs(bias).astype(np.float64)
    return largest, biases if len(largest) == len(biases) else np.full_like(largest, biases.max())


def _constant(model: Any, graph: Any, index: int) -> np.ndarray | None:
    if index < 0 or type_name(graph.tensors[index]) != "float32":
        return None
    data = model.buffers[graph.tensors[index].buffer].data
    if data is None or not len(data):
        return None
    return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(graph.tensors[index].shape)


def check_scales(file: TFLiteFile) -> None:
    """Raise if a file has an operator that runtimes refuse for its scales, before anything runs it.

    Args:
        file: A file that was just converted.

    Raises:
        ValueError: If an operator multiplies the sums of a channel by 256 or more.
    """
    for scales in kernel_scales(file.model):
        channel = int(np.argmax(scales.ratios))
        if scales.ratios[channel] < RATIO_LIMIT:
            continue
        which = f"channel {channel} of " if len(scales.ratios) > 1 else ""
        raise ValueError(
            f"An int8 file of this model would run nowhere: {scales.operator} {layer_name(scales.output)!r} multiplies "
            f"{which}its sums by {scales.ratios[channel]:.3g}, and runtimes take less than {RATIO_LIMIT}. What it "
            "reads, or its weights, differ so much in size by channel that a step of the largest is more than all that "
            "the output was seen to be. Scale the features that it reads to similar sizes before they enter the model, "
            "or leave this layer in float: tfprune.quantize_aware(model, exclude=[layer])."
        )


def layer_name(tensor: str) -> str:
    """Return the name of the layer in the name that the converter gives a tensor."""
    parts = [part for part in tensor.split(";")[0].split("/") if part]
    return "/".join(parts[-2:])
