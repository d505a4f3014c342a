"""The code of values: it comes back, and takes what the entropy says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.coding.entropy import entropy_bits
from tfprune.coding.plain_reader import decoded
from tfprune.coding.rans import MAX_BITS, encoded, quantized_frequencies


def and_back(members, frequencies, bits):
    symbols = [bytes([index % 256, index // 256]) for index in range(len(frequencies))]
    values = decoded(encoded(members, frequencies, bits), len(members), symbols, tuple(frequencies.tolist()), bits)
    return [value[0] + 256 * value[1] for value in values]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300))
def test_what_is_encoded_comes_back(values):
    _, members, counts = np.unique(values, return_inverse=True, return_counts=True)
    frequencies = quantized_frequencies(counts, 8)
    assert and_back(members, frequencies, 8) == members.tolist()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_it_takes_what_the_entropy_says(share):
    random = np.random.default_rng(0)
    members = np.where(random.uniform(size=40_000) < share, 0, random.integers(1, 16, 40_000))
    counts = np.bincount(members)
    counts = counts[counts > 0]
    _, members = np.unique(members, return_inverse=True)
    code = encoded(members, quantized_frequencies(counts))
    assert entropy_bits(counts) / 8 - 1 < len(code) < 1.005 * entropy_bits(counts) / 8 + 8


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=200), st.integers(8, MAX_BITS))
def test_frequencies_are_whole_and_fill_the_table(counts, bits):
    frequencies = quantized_frequencies(np.array(counts), bits)
    assert frequencies.sum() == 2**bits
    assert frequencies.min() >= 1


def test_frequencies_are_near_the_counts():
    assert quantized_frequencies(np.array([1, 2, 5]), 3).tolist() == [1, 2, 5]
    assert quantized_frequencies(np.array([10**6, 1, 1]), 3).tolist() == [6, 1, 1]
    assert quantized_frequencies(np.array([4]), 3).tolist() == [8]
