"""Kernels as 4-bit integers with a scale for each block of weights, in operators that every kernel of LiteRT runs.

The format has a field for blocks (`BlockwiseQuantization`), which XNNPACK reads. LiteRT 2.3's other kernels ignore it
and return other numbers without a word, so it is not written. A block is instead a row of a matrix with one scale for
each row; an operator unpacks that, and another gives it the shape of the kernel.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.tflite.nibbles import packed_nibbles
from tfprune.tflite.scales import KERNELS
from tfprune.tflite.unpacking import TFLiteFile, operator_name, pack, type_name

_LARGEST = 7
_VERSIONS = {"DEQUANTIZE": 6, "RESHAPE": 1}  # of DEQUANTIZE the first that reads 4-bit integers with several scales


def store_in_blocks(file: TFLiteFile, outputs: set[str], block_size: int) -> TFLiteFile:
    """Return a file in which the kernels of some operators are stored in blocks.

    Args:
        file: A file whose kernels of these operators are float32.
        outputs: The names of the tensors that the operators make.
        block_size: How many weights have a scale together.
    """
    changed = file.editable()
    for graph in changed.subgraphs:
        unpacking: list[Any] = []
        for index in _kernels(file, graph, outputs):
            unpacking += _store(changed, graph, index, block_size)
        graph.operators = [*unpacking, *graph.operators]
    return TFLiteFile(pack(changed))


def unfit_for_blocks(file: TFLiteFile, outputs: set[str], block_size: int) -> list[str]:
    """Return the tensors made by those of some operators whose output channels do not divide into blocks.

    Args:
        file: A file.
        outputs: The names of the tensors that the operators make.
        block_size: How many weights have a scale together.
    """
    return [
        name
        for graph in file.model.subgraphs
        for index, name in _kernels(file, graph, outputs).items()
        if int(np.prod(graph.tensors[index].shape[1:])) % block_size
    ]


def can_have_blocks(file: TFLiteFile) -> set[str]:
    """Return the tensors made by operators with a float kernel whose first axis is that of the output channels.

    Args:
        file: A file.
    """
    return {name for graph in file.model.subgraphs for name in _kernels(file, graph, None).values()}


def _kernels(file: TFLiteFile, graph: Any, outputs: set[str] | None) -> dict[int, str]:
    """The kernels of operators, and what the operators make; several may share one."""
    found = {}
    for operator in graph.operators or []:
        operands = KERNELS.get(operator_name(file.model, operator))
        made = graph.tensors[operator.outputs[0]].name.decode(errors="replace")
        if operands is None or operands.axis != 0 or (outputs is not None and made not in outputs):
            continue
        index = int(operator.inputs[operands.weights])
        data = file.model.buffers[graph.tensors[index].buffer].data
        if type_name(graph.tensors[index]) == "float32" and data is not None and len(data):
            found[index] = made
    return found


def _store(model: Any, graph: Any, index: int, block_size: int) -> list[Any]:
    """Make a constant of a graph what two new operators compute, which are returned."""
    kernel = graph.tensors[index]
    name, shape, buffer = kernel.name, np.array(kernel.shape, np.int32), kernel.buffer
    blocks = np.frombuffer(np.asarray(model.buffers[buffer].data, np.uint8).tobytes(), np.float32)
    blocks = blocks.reshape(-1, block_size)
    scales = np.abs(blocks).max(axis=1) / _LARGEST
    scales[scales < np.finfo(np.float32).tiny] = 1.0  # of a block of zeros
    numbers = np.clip(np.rint(blocks / scales[:, None]), -_LARGEST, _LARGEST).astype(np.int8)

    kernel.buffer, kernel.name = 0, name + b"_kernel"
    if not any(each.buffer == buffer for graph in model.subgraphs for each in graph.tensors):
        model.buffers[buffer].data = None
    stored = _tensor(
        model, graph, name, schema.TensorType.INT4, np.array(blocks.shape, np.int32), packed_nibbles(numbers)
    )
    graph.tensors[stored].quantization = schema.QuantizationParametersT()
    graph.tensors[stored].quantization.scale = scales.astype(np.float32)
    graph.tensors[stored].quantization.zeroPoint = np.zeros(len(scales), np.int64)
    rows = _tensor(model, graph, name + b"_blocks", schema.TensorType.FLOAT32, np.array(blocks.shape, np.int32))
    form = _tensor(
        model, graph, name + b"_shape", schema.TensorType.INT32, np.array([len(shape)], np.int32), shape.view(np.uint8)
    )
    return [
        _operator(model, "DEQUANTIZE", [stored], rows, schema.DequantizeOptionsT()),
        _operator(model, "RESHAPE", [rows, form], index, schema.ReshapeOptionsT()),
    ]


def _tensor(model: Any, graph: Any, name: bytes, kind: int, shape: np.ndarray, data: np.ndarray | None = None) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name, kind, shape, 0  # buffer 0 is that of no constant
    if data is not None:
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = data
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(model: Any, name: str, inputs: list[int], output: int, options: Any) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, name)
    operator.inputs, operator.outputs = inputs, [output]
    operator.builtinOptions = options
    operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return operator


def _code(model: Any, name: str) -> int:
    number, version = getattr(schema.BuiltinOperator, name), _VERSIONS[name]
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
