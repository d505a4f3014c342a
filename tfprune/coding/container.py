"""`pack` and `unpack`: a `.tflite` file as a smaller file to download."""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfprune.coding.plain_reader import HEADER, SEGMENT, unpacked
from tfprune.coding.rans import MAX_BITS, encoded, quantized_frequencies
from tfprune.common.files import check_writable, write_atomically
from tfprune.tflite.unpacking import ITEM_BYTES, TFLiteFile, type_name

_MAX_DISTINCT = 4096
_SMALLEST = 64  # bytes of a constant that is worth a code of its own


@dataclass(frozen=True)
class Segment:
    """Values of a file that are coded together.

    Attributes:
        offset: Where the first one starts in the file.
        count: How many there are.
        stride: How many bytes lie between two starts.
        width: The bytes of a value.
        symbols: The distinct values, `(distinct, width)`, uint8.
        frequencies: Of the distinct values.
        code: The values.
    """

    offset: int
    count: int
    stride: int
    width: int
    symbols: np.ndarray
    frequencies: np.ndarray
    code: bytes

    @property
    def num_bytes(self) -> int:
        """What the segment takes in the container, at most."""
        return len(self.code) + len(self.head)

    @property
    def head(self) -> bytes:
        """What the index says of the segment."""
        fields = self.offset, self.count, self.stride, self.width, MAX_BITS, len(self.symbols), len(self.code)
        return SEGMENT.pack(*fields) + self.symbols.tobytes() + self.frequencies.astype("<u2").tobytes()

    def places(self) -> np.ndarray:
        """Return which bytes of the file belong to the segment."""
        starts = self.offset + self.stride * np.arange(self.count)
        places: np.ndarray = (starts[:, None] + np.arange(self.width)).ravel()
        return places


def pack(path: str | os.PathLike[str], packed: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a `.tflite` file as a `.tfz` container, which is smaller and unpacks to the same bytes.

    The weights of every tensor are coded by how often each value comes (rANS, within a percent of the entropy), all
    else is deflated. Kernels that share few values, in float32 too, and zeros of pruned weights take what they hold.
    It is for downloads: unpack the file on the device before it is run, with `tfprune.unpack` or with a port of
    `recipes/unpack_weights.py`, 60 lines of plain Python.

    Reference: Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression
    rate of arithmetic coding", 2013, https://arxiv.org/abs/1311.2540; Han, Mao and Dally, "Deep Compression", ICLR 2016

    Args:
        path: The `.tflite` file.
        packed: Where the container goes; ends in `.tfz`.
        overwrite: Whether to replace a file at `packed`.

    Returns:
        The path of the container.

    Raises:
        FileNotFoundError: If there is no file at `path`.
        FileExistsError: If there is a file at `packed`, and `overwrite` is False.
        ValueError: If the file at `path` is no whole `.tflite` file, or `packed` ends in something else.
        OSError: If `packed` cannot be written.
        TypeError: If `path` is no path.

    Example:

    >>> import keras, tempfile, tfprune
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> folder = Path(tempfile.mkdtemp())
    >>> report = tfprune.export(tfprune.cluster(model, 8), folder / "model.tflite")
    >>> packed = tfprune.pack(folder / "model.tflite", folder / "model.tfz")
    >>> packed.stat().st_size < 0.2 * report.file_bytes
    True
    """
    if isinstance(path, keras.Model):
        raise TypeError(f"Expected the path of a .tflite file. Received the model {path.name!r}. Export it first.")
    file = TFLiteFile.read(path)
    target = check_writable(packed, ".tfz", overwrite)
    return write_atomically(target, container(file))


def unpack(packed: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the `.tflite` file that a `.tfz` container was made of, bit for bit.

    Args:
        packed: The container.
        path: Where the file goes; ends in `.tflite`.
        overwrite: Whether to replace a file at `path`.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If there is no file at `packed`.
        FileExistsError: If there is a file at `path`, and `overwrite` is False.
        ValueError: If the container is damaged, or `path` ends in something else.
        OSError: If `path` cannot be written.

    Example:

    >>> import keras, tempfile, tfprune
    >>> folder = Path(tempfile.mkdtemp())
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> report = tfprune.export(model, folder / "model.tflite")
    >>> packed = tfprune.pack(folder / "model.tflite", folder / "model.tfz")
    >>> tfprune.unpack(packed, folder / "again.tflite").read_bytes() == (folder / "model.tflite").read_bytes()
    True
    """
    source = Path(packed)
    if not source.is_file():
        raise FileNotFoundError(f"There is no file at {str(packed)!r}. Check the path, or pack the model first.")
    target = check_writable(path, ".tflite", overwrite)
    try:
        content = unpacked(source.read_bytes())
    except ValueError as error:
        raise ValueError(f"{str(packed)!r}: {error}") from error
    except (IndexError, struct.error, zlib.error) as error:  # whole by its checksum: somebody made it so
        raise ValueError(
            f"{str(packed)!r} is no container that tfprune wrote: {error}. Pack the file again."
        ) from error
    return write_atomically(target, content)


def container(file: TFLiteFile) -> bytes:
    """Return a `.tflite` file as the bytes of a container.

    Args:
        file: The file.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        segments = list(coded_segments(file))
    except ValueError as error:
        where = "The file" if file.path is None else repr(str(file.path))
        raise ValueError(f"{where} is no whole .tflite file: {error}. Copy or export it again.") from error
    rest = np.ones(len(file.content), bool)
    for segment in segments:
        rest[segment.places()] = False
    left = np.frombuffer(file.content, np.uint8)[rest].tobytes()
    index = b"".join([struct.pack("<I", len(segments)), *(segment.head for segment in segments), left])
    deflated = zlib.compress(index, 9)
    tail = struct.pack("<III", len(file.content), zlib.crc32(file.content), len(deflated)) + deflated
    tail += b"".join(segment.code for segment in segments)
    return HEADER.pack(b"TFZ1", zlib.crc32(tail), 0, 0, 0)[:8] + tail


def coded_segments(file: TFLiteFile) -> Iterator[Segment]:
    """Find the constants of a file that take less when they are coded than when they are deflated.

    Args:
        file: The file.

    Yields:
        The segments, which do not overlap.

    Raises:
        ValueError: If the file is damaged.
    """
    model, content = file.model, np.frombuffer(file.content, np.uint8)
    widths = {
        tensor.buffer: int(ITEM_BYTES.get(type_name(tensor), 1)) or 1
        for graph in model.subgraphs
        for tensor in graph.tensors or []
    }
    for number, width in widths.items():
        data = model.buffers[number].data
        if data is None or len(data) < _SMALLEST or len(data) % width:
            continue
        start = np.asarray(data).ctypes.data - content.ctypes.data  # it is a view
        yield from _best(content[start : start + len(data)], start, width)


def _best(data: np.ndarray, start: int, width: int) -> list[Segment]:
    """The segments that a constant is coded as; none if deflate does as well."""
    ways = [_as_values(data, start, width)]
    if width > 1:  # by the first byte of each value, by the second, and so on: exponents repeat, last bits do not
        planes = [_as_values(data[byte:], start + byte, 1, width) for byte in range(width)]
        ways.append([part for plane in planes for part in plane if part.num_bytes < part.count])
    sizes = [sum(part.num_bytes for part in way) + _left(data, start, way) for way in ways]
    best = int(np.argmin(sizes))
    return ways[best] if sizes[best] < len(zlib.compress(data.tobytes(), 9)) else []


def _left(data: np.ndarray, start: int, way: list[Segment]) -> int:
    """What deflate takes for the bytes of a constant that no segment holds."""
    rest = np.ones(len(data), bool)
    for segment in way:
        rest[segment.places() - start] = False
    return len(zlib.compress(data[rest].tobytes(), 9)) if rest.any() else 0


def _as_values(data: np.ndarray, offset: int, width: int, stride: int | None = None) -> list[Segment]:
    """A segment of all values, or none if they are too different for a table to help."""
    stride = stride or width
    values = np.lib.stride_tricks.sliding_window_view(data, width)[::stride]
    keys = np.ascontiguousarray(values).view(f"<u{width}").ravel()
    distinct, members, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(distinct) > min(_MAX_DISTINCT, max(len(keys) // 4, 2)) and width > 1:
        return []
    frequencies = quantized_frequencies(counts)
    symbols = distinct.view(np.uint8).reshape(-1, width)
    return [Segment(offset, len(keys), stride, width, symbols, frequencies, encoded(members, frequencies))]
