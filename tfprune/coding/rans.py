"""Asymmetric numeral systems: a code that comes as close to the entropy as arithmetic coding, and decodes with a table.

Reference: Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate of
arithmetic coding", 2013, https://arxiv.org/abs/1311.2540
"""

import numpy as np

MAX_BITS = 14
_LOW = 1 << 23  # a state between codes is at least this, and below 2**31


def quantized_frequencies(counts: np.ndarray, bits: int = MAX_BITS) -> np.ndarray:
    """Return frequencies that sum up to a power of two, as near to counts as whole numbers of at least 1 can be.

    Args:
        counts: How often each value comes, at least once; at most 2**bits values.
        bits: The power.

    Returns:
        An int64 array of the shape of `counts`.

    Example:

    >>> quantized_frequencies(np.array([3, 1]), 3).tolist()
    [6, 2]
    """
    total = 1 << bits
    exact = counts * (total / counts.sum())
    frequencies = np.maximum(np.floor(exact), 1).astype(np.int64)
    while (missing := total - int(frequencies.sum())) > 0:
        # To those that gain most bits by it.
        order = np.argsort(-counts * np.log2((frequencies + 1) / frequencies), kind="stable")[:missing]
        frequencies[order] += 1
    while (excess := int(frequencies.sum()) - total) > 0:
        larger = np.where(frequencies > 1, frequencies, 2)
        losses = np.where(frequencies > 1, counts * np.log2(larger / (larger - 1)), np.inf)
        order = np.argsort(losses, kind="stable")[: min(excess, int((frequencies > 1).sum()))]
        frequencies[order] -= 1
    return frequencies


def encoded(members: np.ndarray, frequencies: np.ndarray, bits: int = MAX_BITS) -> bytes:
    """Return the code of a sequence of values.

    Args:
        members: For each value in order, which of the distinct values it is.
        frequencies: Those of the distinct values; they sum up to 2**bits.
        bits: The power.

    Returns:
        The code: the last state, 4 bytes, and what is read into it while it is decoded.
    """
    starts = np.cumsum(frequencies) - frequencies
    table = [
        (int(frequency), int(start), int(frequency) << (31 - bits))
        for frequency, start in zip(frequencies, starts, strict=True)
    ]
    state, out = _LOW, bytearray()
    for member in reversed(members.tolist()):
        frequency, start, limit = table[member]
        while state >= limit:
            out.append(state & 255)
            state >>= 8
        state = (state // frequency << bits) + state % frequency + start
    return state.to_bytes(4, "little") + bytes(reversed(out))
