"""A `.tflite` file as the objects of LiteRT's public schema, and back; what is damaged is found before it is run."""

import copy
import math
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfprune.common.files import check_expansion
from tfprune.tflite.sparse_tensors import positions

_IDENTIFIER = b"TFL3"
_MAX_TENSOR_BYTES = 2**30  # more than a phone has for one tensor; the interpreter would try to allocate any size

ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4,
    "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16, "int4": 0.5,
}  # fmt: skip

_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPE_NAMES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


class TFLiteFile:
    """The bytes of a `.tflite` file and, from when they are first asked for, the objects that they stand for.

    What looks into a file takes this value and not bytes, so that a file is unpacked once however many look into it.

    Args:
        content: The file's bytes; they may be damaged.
        path: Where they come from, for messages.

    Example:

    >>> TFLiteFile(b"....TFL3").model
    Traceback (most recent call last):
    ...
    ValueError: something in the file points outside of it
    """

    def __init__(self, content: bytes, path: str | os.PathLike[str] | None = None) -> None:
        self.content = content
        self.path = path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "TFLiteFile":
        """Return the file at a path.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is a Keras model by its name, or what is packed into it would fill memory.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file at {str(path)!r}. Check the path, or export the model first.")
        if Path(path).suffix in (".keras", ".h5", ".hdf5"):
            raise ValueError(
                f"{str(path)!r} is a Keras model, and a .tflite file is needed. Export it first: "
                f"tfprune.export(model, '{Path(path).stem}.tflite')."
            )
        check_expansion(path)  # labels stand behind the graph, in a zip archive
        return cls(Path(path).read_bytes(), path)

    @cached_property
    def model(self) -> Any:
        """The file as a `ModelT`, to look at; see `unpack`.

        Raises:
            ValueError: If the file is damaged.
        """
        return unpack(self.content)

    def editable(self) -> Any:
        """Return a copy of `model` to change and `pack`, whose buffers are still views of this file."""
        shared = {id(buffer.data): buffer.data for buffer in self.model.buffers}
        return copy.deepcopy(self.model, shared)


def unpack(content: bytes) -> Any:
    """Return a file as a `ModelT` of the public schema, after checking that everything it refers to is there.

    The interpreter trusts a file more than this: one wrong byte in a shape can make it allocate without end.

    Args:
        content: The file's bytes.

    Returns:
        The model; its buffers are views of `content`.

    Raises:
        ValueError: If the file is not a `.tflite` file, or refers to something that is not in it.

    Example:

    >>> unpack(b"....TFL3")
    Traceback (most recent call last):
    ...
    ValueError: something in the file points outside of it
    """
    if content[4:8] != _IDENTIFIER:
        raise ValueError(f"bytes 4 to 8 are {content[4:8]!r}, not {_IDENTIFIER!r}")
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        _check(model)
    except Exception as error:  # whatever a wrong offset leads to: struct.error, IndexError, TypeError, ...
        if type(error) is ValueError:
            raise
        raise ValueError("something in the file points outside of it") from error
    return model


def pack(model: Any) -> bytes:
    """Return a `ModelT` of the public schema as the bytes of a file, with the alignment that the schema asks for.

    Args:
        model: The model; its buffers are replaced by aligned ones.

    Returns:
        The file's bytes.
    """
    model.buffers = [_AlignedBuffer(buffer) for buffer in model.buffers]
    builder = flatbuffers.Builder(sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None) + 2**16)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """Return the name of an operator of `model`: of the schema, or a custom one's own."""
    name, custom = schema_name(model, operator), model.operatorCodes[operator.opcodeIndex].customCode
    return custom.decode() if name == "CUSTOM" and custom else name


def schema_name(model: Any, operator: Any) -> str:
    """Return the name that the schema has for an operator of `model`: `"CUSTOM"` for all that are not of the schema."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Files for old runtimes keep small codes in the older, 8-bit field; the schema says: take the larger.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _OPERATOR_NAMES.get(number, f"OPERATOR_{number}")  # a newer schema may have more


def type_name(tensor: Any) -> str:
    """Return the dtype of a tensor of the file, such as `"int8"`."""
    return _TYPE_NAMES[tensor.type]


class _AlignedBuffer(schema.BufferT):
    """A buffer whose bytes start at a multiple of 16, which the generated code forgets and kernels rely on."""

    def __init__(self, buffer: Any) -> None:
        super().__init__(buffer.data, buffer.offset, buffer.size)

    def Pack(self, builder: Any) -> Any:  # noqa: N802, the schema's own name
        data = None
        if self.data is not None:
            content = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), 16)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        schema.BufferAddOffset(builder, self.offset)
        schema.BufferAddSize(builder, self.size)
        return schema.BufferEnd(builder)


def _check(model: Any) -> None:
    if not model.subgraphs or not model.buffers:
        raise ValueError("it has no graph")
    for code in model.operatorCodes or []:
        _check_text("a custom operator", code.customCode or b"")
    for graph in model.subgraphs:
        _check_graph(model, graph)
    for signature in model.signatureDefs or []:
        maps = [*(signature.inputs or []), *(signature.outputs or [])]
        _check_text("a signature", signature.signatureKey or b"")
        for each in maps:
            _check_text("an input or output", each.name)
        _check_range("subgraph", [signature.subgraphIndex], len(model.subgraphs))
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        _check_range("tensor", [each.tensorIndex for each in maps], len(tensors))


def _check_graph(model: Any, graph: Any) -> None:
    tensors = graph.tensors or []
    _check_range("tensor", [*_list(graph.inputs), *_list(graph.outputs)], len(tensors))
    for tensor in tensors:
        _check_text("a tensor", tensor.name or b"")
        _check_range("buffer", [tensor.buffer], len(model.buffers))
        _check_tensor(tensor, model.buffers[tensor.buffer])
    for operator in graph.operators or []:
        operator.inputs, operator.outputs = _list(operator.inputs), _list(operator.outputs)  # CALL_ONCE has neither
        _check_range("operator code", [operator.opcodeIndex], len(model.operatorCodes or []))
        used = [*operator.inputs, *operator.outputs, *_list(operator.intermediates)]
        _check_range("tensor", [index for index in used if index != -1], len(tensors))  # -1: an optional one left out
        if operator_name(model, operator) == "DENSIFY":
            _check_same_shape(tensors[operator.inputs[0]], tensors[operator.outputs[0]])


def _check_range(what: str, indices: list[int], count: int) -> None:
    wrong = [int(index) for index in indices if not 0 <= index < count]
    if wrong:
        raise ValueError(f"it refers to {what} {wrong[0]}, but has {count}")


def _check_text(owner: str, name: bytes | None) -> None:
    try:
        str(name or b"", "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the name of {owner} is no text: {name!r}") from error
    if name is None:
        raise ValueError(f"{owner} has no name")


def _check_tensor(tensor: Any, buffer: Any) -> None:
    kind = _TYPE_NAMES.get(tensor.type)
    if kind is None:
        raise ValueError(f"a tensor has the unknown type {tensor.type}")
    shape = [int(size) for size in _list(tensor.shape)]
    num_bytes = int(math.prod(shape) * ITEM_BYTES.get(kind, 0))
    stored = 0 if buffer.data is None else len(buffer.data)
    if min(shape, default=0) < 0 or (num_bytes > _MAX_TENSOR_BYTES and not stored):
        raise ValueError(f"a tensor has the impossible shape {shape}")
    if tensor.sparsity is not None:
        num_values = len(positions(tensor.sparsity, tuple(shape))[0])
        num_bytes = int(num_values * ITEM_BYTES.get(kind, 0))
    if (stored or tensor.sparsity is not None) and stored < num_bytes:
        raise ValueError(f"a constant of shape {shape} has {stored} bytes instead of {num_bytes}")


def _check_same_shape(source: Any, target: Any) -> None:
    if _list(source.shape) != _list(target.shape):
        raise ValueError(f"a sparse constant of shape {_list(source.shape)} is unpacked into {_list(target.shape)}")


def _list(vector: Any) -> list[int]:
    return [] if vector is None else list(vector)
