"""How few bits weights could take: entropy, Huffman code, and the differences between the places of those not zero."""

import heapq
import itertools
import math

import numpy as np


def entropy_bits(counts: np.ndarray) -> float:
    """Return the bits that values take at least, if each is coded by how often it comes.

    Reference: Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal 1948,
    https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Args:
        counts: How often each distinct value comes.

    Returns:
        The bits of all values together.

    Example:

    >>> entropy_bits(np.array([4, 2, 2]))
    12.0
    """
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def huffman_bits(counts: np.ndarray) -> int:
    """Return the bits that values take in a Huffman code, without its table.

    Reference: Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proceedings of the IRE 1952,
    https://doi.org/10.1109/JRPROC.1952.273898

    Args:
        counts: How often each distinct value comes, at least once.

    Returns:
        The bits of all values together; one for each if they are all the same.

    Example:

    >>> huffman_bits(np.array([4, 2, 1, 1]))
    14
    """
    heap = [int(count) for count in counts]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    bits = 0
    while len(heap) > 1:  # what two nodes hold gets one bit longer when they are joined
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


def relative_indices(weights: np.ndarray, bits: int) -> np.ndarray:
    """Return how far each weight that is not zero lies behind the one before it, in numbers of a few bits.

    Where the next one lies farther than `2**bits - 1`, a zero is stored in between, at that distance.

    Reference: Han, Mao and Dally, "Deep Compression", ICLR 2016, https://arxiv.org/abs/1510.00149

    Args:
        weights: The weights, in any shape.
        bits: Of a difference.

    Returns:
        The differences, from 1 to `2**bits - 1`, of weights and zeros in between; the first counts from before the
        first weight.

    Example:

    >>> relative_indices(np.array([0, 0, 5, 0, 0, 0, 0, 7]), 2).tolist()
    [3, 3, 2]
    """
    longest = 2**bits - 1
    gaps = np.diff(np.flatnonzero(weights), prepend=-1)
    fillers = (gaps - 1) // longest
    return np.fromiter(
        itertools.chain.from_iterable(
            [longest] * int(filler) + [int(gap - filler * longest)] for gap, filler in zip(gaps, fillers, strict=True)
        ),
        np.int64,
    )


def sparse_bits(weights: np.ndarray, bits: int) -> tuple[int, int]:
    """Return what the weights that are not zero take, with their places as differences.

    Args:
        weights: The weights, in any shape.
        bits: Of a difference.

    Returns:
        The bits with codes of fixed length for values, and those with Huffman codes for values and differences; both
        without tables.

    Example:

    >>> sparse_bits(np.array([0, 0, 5, 0, 0, 0, 0, 7]), 2)
    (12, 8)
    """
    gaps = relative_indices(weights, bits)
    if not len(gaps):
        return 0, 0
    counts = np.unique(weights[weights != 0], return_counts=True)[1]
    num_fillers = len(gaps) - int(counts.sum())
    counts = np.append(counts, num_fillers) if num_fillers else counts
    fixed = len(gaps) * (bits + max(1, math.ceil(math.log2(len(counts)))))
    return fixed, huffman_bits(counts) + huffman_bits(np.unique(gaps, return_counts=True)[1])
