"""`coded_size`: what the weights of a model or file take, layer by layer, in one code or another."""

import importlib
import lzma
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from rich.table import Table

from tfprune.coding.container import container
from tfprune.coding.entropy import entropy_bits, huffman_bits, sparse_bits
from tfprune.common.files import gzip_size
from tfprune.common.names import labels
from tfprune.common.tables import Report, new_table
from tfprune.stripping import plain
from tfprune.tflite.nibbles import unpacked_nibbles
from tfprune.tflite.unpacking import ITEM_BYTES, TFLiteFile, type_name

_GAP_BITS = (4, 8)
_DTYPES = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "float16": np.float16, "float32": np.float32}
_LONGEST = 40  # characters of a name in the table


@dataclass(frozen=True)
class CodedTensor:
    """What the weights of one tensor take. Codes are counted without their tables, but for the codebook.

    Attributes:
        name: Of the variable, or of the file's tensor.
        weights: How many weights.
        values: How many different values.
        zeros: The fraction of weights that are zero.
        stored_bytes: What they take as they are.
        entropy: Bits per weight at least, coded by how often each value comes.
        codebook_bytes: Numbers of fixed length for values, and the values: what sharing saves by itself.
        huffman_bytes: In a Huffman code, and the values.
        sparse_bytes: Those that are not zero, with Huffman codes for values and for differences of places, of 4 or 8
            bits, and the values.
    """

    name: str
    weights: int
    values: int
    zeros: float
    stored_bytes: int
    entropy: float
    codebook_bytes: int
    huffman_bytes: int
    sparse_bytes: int


@dataclass(frozen=True)
class CodedSize(Report):
    """What the weights of a model or file take.

    Attributes:
        tensors: The kernels and other weights of 16 numbers or more, in order.
        file_bytes: The size of the `.tflite` file; `None` of a Keras model.
        gzip_bytes: Of the file at gzip's level 9; `None` of a Keras model.
        lzma_bytes: Of the file as `.xz` at level 9; `None` of a Keras model.
        zstd_bytes: Of the file in Zstandard at level 22; `None` of a Keras model, or without the package `zstandard`.
        packed_bytes: Of the file that `tfprune.pack` would write; `None` of a Keras model.
    """

    tensors: tuple[CodedTensor, ...]
    file_bytes: int | None = None
    gzip_bytes: int | None = None
    lzma_bytes: int | None = None
    zstd_bytes: int | None = None
    packed_bytes: int | None = None

    def to_table(self) -> Table:
        """Return one row for each tensor, and one for all."""
        numbers = ["weights", "values", "zeros", "bits each", "stored B", "codebook B", "Huffman B", "sparse B"]
        table = new_table("Coded size", ["weights of"], numbers)
        names = labels([tensor.name for tensor in self.tensors], _LONGEST)
        for name, tensor in zip(names, self.tensors, strict=True):
            table.add_row(name, *_cells(tensor), end_section=tensor is self.tensors[-1])
        if self.tensors:
            table.add_row("all", *_cells(_total(self.tensors)))
        sizes = {"file": self.file_bytes, "gzip": self.gzip_bytes, "xz": self.lzma_bytes}
        sizes |= {"zstd": self.zstd_bytes, "packed": self.packed_bytes}
        known = [f"{name} {size:,} B" for name, size in sizes.items() if size is not None]
        table.caption = ", ".join(known) or None
        return table


def coded_size(model: keras.Model | str | os.PathLike[str]) -> CodedSize:
    """Return what the weights of a model or `.tflite` file take when they are coded, layer by layer.

    Coded sizes say what there is to gain by sharing values and by pruning single weights, of which neither the model
    nor the file as it is stored becomes smaller. Of a file, the whole of it is also compressed in several ways.

    Reference: Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", ICLR 2016, https://arxiv.org/abs/1510.00149

    Args:
        model: A built Keras model, of which the plain one is counted if it was made for training (see `tfprune.strip`);
            or the path of a `.tflite` file.

    Returns:
        A report that prints as a table. Weights of fewer than 16 numbers are left out.

    Raises:
        FileNotFoundError: If there is no file at the path.
        TypeError: If `model` is neither a Keras model nor a path.
        ValueError: If the file is no whole `.tflite` file, or the model is not built.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32)])
    >>> (kernel,) = tfprune.coded_size(tfprune.cluster(model, 16)).tensors[:1]
    >>> kernel.values, kernel.entropy <= 4, kernel.codebook_bytes, kernel.stored_bytes
    (16, True, 576, 4096)
    """
    if isinstance(model, keras.Model):
        if not model.built:
            raise ValueError(f"The model {model.name!r} is not built, so it has no weights. Call model.build() first.")
        arrays = ((variable.path, keras.ops.convert_to_numpy(variable)) for variable in plain(model).weights)
        found = ((name, array, array.dtype.itemsize) for name, array in arrays)
        return CodedSize(_tensors(found))
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"Expected a Keras model or the path of a .tflite file. Received: {type(model).__name__}.")
    file = TFLiteFile.read(Path(model))
    packed = container(file)
    return CodedSize(
        tensors=_tensors(_constants(file)),
        file_bytes=len(file.content),
        gzip_bytes=gzip_size(file.content),
        lzma_bytes=len(lzma.compress(file.content, preset=9)),
        zstd_bytes=_zstd_size(file.content),
        packed_bytes=len(packed),
    )


def _constants(file: TFLiteFile) -> Iterator[tuple[str, np.ndarray, float]]:
    seen: set[int] = set()
    for graph in file.model.subgraphs:
        for tensor in graph.tensors or []:
            data, kind = file.model.buffers[tensor.buffer].data, type_name(tensor)
            if data is not None and (kind in _DTYPES or kind == "int4") and tensor.buffer not in seen:
                seen.add(tensor.buffer)
                stored = np.asarray(data, np.uint8)
                if kind == "int4":  # in an odd number of them the last byte is half full
                    yield tensor.name.decode(), unpacked_nibbles(stored)[: math.prod(map(int, tensor.shape))], 0.5
                else:
                    yield tensor.name.decode(), np.frombuffer(stored.tobytes(), _DTYPES[kind]), ITEM_BYTES[kind]


def _tensors(found: Iterable[tuple[str, np.ndarray, float]]) -> tuple[CodedTensor, ...]:
    return tuple(_coded(*each) for each in found if each[1].size >= 16 and each[1].dtype.kind in "fiuV")


def _coded(name: str, weights: np.ndarray, item: float) -> CodedTensor:
    flat = weights.ravel()
    if flat.dtype.kind not in "iu":
        flat = flat.astype(np.float32)  # of bfloat16 too, each of which is one
    flat = flat + flat.dtype.type(0)  # a pruned weight is -0.0, and equal to 0.0
    values, counts = np.unique(flat, return_counts=True)
    table = math.ceil(len(values) * item)
    sparse = min(sparse_bits(flat, bits)[1] for bits in _GAP_BITS)
    living = len(values) - int((values == 0).any())
    return CodedTensor(
        name=name,
        weights=flat.size,
        values=len(values),
        zeros=float((flat == 0).mean()),
        stored_bytes=math.ceil(flat.size * item),
        entropy=entropy_bits(counts) / flat.size,
        codebook_bytes=_bytes(flat.size * math.ceil(math.log2(len(values)))) + table,
        huffman_bytes=_bytes(huffman_bits(counts)) + table,
        sparse_bytes=_bytes(sparse) + math.ceil(living * item),
    )


def _total(tensors: tuple[CodedTensor, ...]) -> CodedTensor:
    weights = sum(tensor.weights for tensor in tensors)
    return CodedTensor(
        name="all",
        weights=weights,
        values=max(tensor.values for tensor in tensors),
        zeros=sum(tensor.zeros * tensor.weights for tensor in tensors) / weights,
        stored_bytes=sum(tensor.stored_bytes for tensor in tensors),
        entropy=sum(tensor.entropy * tensor.weights for tensor in tensors) / weights,
        codebook_bytes=sum(tensor.codebook_bytes for tensor in tensors),
        huffman_bytes=sum(tensor.huffman_bytes for tensor in tensors),
        sparse_bytes=sum(tensor.sparse_bytes for tensor in tensors),
    )


def _cells(tensor: CodedTensor) -> list[str]:
    sizes = tensor.stored_bytes, tensor.codebook_bytes, tensor.huffman_bytes, tensor.sparse_bytes
    counts = f"{tensor.weights:,}", f"{tensor.values:,}"
    return [*counts, f"{tensor.zeros:.1%}", f"{tensor.entropy:.2f}", *(f"{size:,}" for size in sizes)]


def _bytes(bits: int) -> int:
    return -(-bits // 8)


def _zstd_size(content: bytes) -> int | None:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:  # an extra: `pip install zstandard`
        return None
    return len(zstandard.ZstdCompressor(level=22).compress(content))
