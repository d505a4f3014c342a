"""Entropy, Huffman code and relative indices: by hand, by definition, and against zlib."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.coding.entropy import entropy_bits, huffman_bits, relative_indices, sparse_bits


def test_the_bits_of_a_textbook_code():
    counts = np.array([45, 13, 12, 16, 9, 5])  # Cormen et al., Introduction to Algorithms, section on Huffman codes
    assert huffman_bits(counts) == 224
    assert entropy_bits(np.array([1, 1, 2])) == 6.0
    assert entropy_bits(np.array([7])) == 0.0
    assert huffman_bits(np.array([7])) == 7


@pytest.mark.parametrize("counts", [[1, 1], [5, 2, 1], [9, 5, 4, 3], [1, 1, 1, 1, 10], [3, 3, 2, 2, 1]])
def test_no_prefix_code_is_shorter(counts):
    """Lengths that Kraft's inequality allows, all of them."""
    longest = len(counts) - 1
    possible = itertools.product(range(1, longest + 1), repeat=len(counts))
    best = min(
        sum(map(int.__mul__, counts, lengths))
        for lengths in possible
        if sum(2 ** (longest - length) for length in lengths) <= 2**longest
    )
    assert huffman_bits(np.array(counts)) == best


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_huffman_is_within_a_bit_of_the_entropy(counts):
    counts = np.array(counts)
    assert entropy_bits(counts) - 1e-6 <= huffman_bits(counts) < entropy_bits(counts) + counts.sum()


def test_zlib_codes_bytes_in_about_as_many_bits():
    random = np.random.default_rng(0)
    data = np.clip(random.normal(0, 6, 50_000), -128, 127).astype(np.int8)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    size = len(compressor.compress(data.tobytes()) + compressor.flush())
    ours = huffman_bits(np.unique(data, return_counts=True)[1]) / 8
    assert ours < size < 1.01 * ours


def by_definition(weights, bits):
    """Walk over the weights, and note a distance at each that is not zero or as far as the numbers reach."""
    found, distance = [], 0
    last = max(np.flatnonzero(weights), default=-1)
    for weight in weights[: last + 1]:
        distance += 1
        if weight or distance == 2**bits - 1:
            found.append(distance)
            distance = 0
    return found


@given(st.lists(st.sampled_from([0] * 20 + [1, 2]), max_size=200), st.integers(1, 5))
def test_differences_lead_to_every_weight(weights, bits):
    weights = np.array(weights, int)
    gaps = relative_indices(weights, bits)
    assert gaps.tolist() == by_definition(weights, bits)
    assert set(np.flatnonzero(weights)) <= set(np.cumsum(gaps) - 1)


def test_sparse_weights_by_hand():
    weights = np.zeros(40)
    weights[[0, 1, 39]] = [1.0, 2.0, 1.0]
    # 1, 1, and 38 as 15 + 15 + 8: five numbers, of two values and the zero in between.
    assert relative_indices(weights, 4).tolist() == [1, 1, 15, 15, 8]
    assert sparse_bits(weights, 4)[0] == 5 * (4 + 2)
    # 1, 1, 1, 0, 0, in codes of 1 and 2 bits; and so the differences.
    assert sparse_bits(weights, 4)[1] == (2 + 2 * 2 + 1 * 2) + (2 + 2 * 2 + 1 * 2)
    assert sparse_bits(np.zeros(9), 4) == (0, 0)
