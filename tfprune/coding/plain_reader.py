"""Unpack a `.tfz` file (docs/coded-size.md) in plain Python: `python unpack_weights.py model.tfz model.tflite`."""

import struct
import sys
import zlib
from pathlib import Path

HEADER = struct.Struct(
    "<4sIIII"
)  # magic, CRC-32 of all that follows it, size and CRC-32 of the file, size of the index
SEGMENT = struct.Struct(
    "<IIIBBHI"
)  # offset, count and stride of values, their width, bits, distinct values, coded bytes


def unpacked(packed: bytes) -> bytes:
    """Return the bytes of the `.tflite` file, or raise `ValueError` if something is damaged."""
    if len(packed) < HEADER.size or packed[:4] != b"TFZ1":
        raise ValueError(f"This is no .tfz file: it begins with {packed[:4]!r} and not with b'TFZ1'.")
    _, checksum, size, file_checksum, index_size = HEADER.unpack_from(packed)
    if size > 2**31 or zlib.crc32(packed[8:]) != checksum:
        raise ValueError("The .tfz file is cut short or damaged: its checksum differs. Copy or pack it again.")
    end = HEADER.size + index_size
    index = zlib.decompressobj().decompress(packed[HEADER.size : end], 2 * size + 2**20)
    (num_segments,), at, file, free = struct.unpack_from("<I", index), 4, bytearray(size), bytearray(b"\1" * size)
    for _ in range(num_segments):
        offset, count, stride, width, bits, distinct, length = SEGMENT.unpack_from(index, at)
        at += SEGMENT.size
        symbols = [index[at + i * width : at + (i + 1) * width] for i in range(distinct)]
        frequencies = struct.unpack_from(f"<{distinct}H", index, at + distinct * width)
        at += distinct * (width + 2)
        if count > size or offset + (count - 1) * stride + width > size:
            raise ValueError("The .tfz file is damaged: weights lie outside of the file. Copy or pack it again.")
        values = decoded(packed[end : end + length], count, symbols, frequencies, bits)
        end += length
        for byte in range(width):
            places = slice(offset + byte, offset + byte + (count - 1) * stride + 1, stride)
            file[places], free[places] = bytes(value[byte] for value in values), bytes(count)
    for place, byte in zip((place for place, is_free in enumerate(free) if is_free), index[at:], strict=True):
        file[place] = byte
    if zlib.crc32(file) != file_checksum:
        raise ValueError("The .tfz file is damaged: what it holds has another checksum. Copy or pack it again.")
    return bytes(file)


def decoded(code: bytes, count: int, symbols: list[bytes], frequencies: tuple[int, ...], bits: int) -> list[bytes]:
    """Return values behind a code of asymmetric numeral systems (rANS), whose frequencies sum up to 2**bits."""
    table = [(s, f, i) for s, f in zip(symbols, frequencies, strict=True) for i in range(f)]
    state, at, values = int.from_bytes(code[:4], "little"), 4, []
    for _ in range(count):
        symbol, frequency, position = table[state & (1 << bits) - 1]
        state = frequency * (state >> bits) + position
        while state < 1 << 23:
            state, at = state << 8 | code[at], at + 1
        values.append(symbol)
    return values


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(unpacked(Path(sys.argv[1]).read_bytes()))
