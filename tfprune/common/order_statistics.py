"""The k-th lowest of many numbers, exactly, and without a copy of them all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_SAMPLE = 2**16
_SMALL = 2**20
"""Of so many numbers a copy is cheap."""
_PART = 2**18
"""So many numbers are looked at together: they fit into a processor's cache."""

Arrays = Callable[[], Iterable[np.ndarray]]
"""Makes the same flat arrays, one after another, each time it is called."""


@dataclass(frozen=True)
class KthLowest:
    """Where the k-th lowest number lies.

    Attributes:
        value: The k-th lowest number.
        below: For each array, how many numbers are lower.
        ties: For each array, how many are equal to it.
    """

    value: Any
    below: list[int]
    ties: list[int]

    def counts(self, k: int) -> list[int]:
        """Return how many of the k lowest lie in each array, where of equal numbers the later ones are the lower.

        Args:
            k: The same k.
        """
        left, counts = k - sum(self.below), []
        for below, ties in zip(reversed(self.below), reversed(self.ties), strict=True):
            counts.append(below + min(ties, left))
            left -= min(ties, left)
        return counts[::-1]


def kth_lowest(arrays: Arrays, sizes: Sequence[int], k: int) -> KthLowest:
    """Find the k-th lowest number of several arrays, while only one of them needs to be in memory.

    A random sample tells two numbers between which it lies almost certainly. One look at all numbers counts those
    below and at the two, and gathers the few in between, among which it is found. If it lies elsewhere after all, the
    two are taken further apart. So the result is exact, and does not depend on chance.

    Reference: Floyd and Rivest, Expected Time Bounds for Selection, Communications of the ACM 1975,
    https://doi.org/10.1145/360680.360691

    Args:
        arrays: Makes the arrays. They hold no NaN.
        sizes: How many numbers each of them has.
        k: From 1 to the number of all numbers.

    Returns:
        The number, and how many are below and equal in each array.

    Example:

    >>> found = kth_lowest(lambda: [np.array([3.0, 1.0]), np.array([2.0, 2.0])], [2, 2], k=2)
    >>> float(found.value), found.below, found.ties, found.counts(2)
    (2.0, [1, 0], [0, 2], [1, 1])
    """
    size = sum(sizes)
    if size <= _SMALL:
        value = np.partition(np.concatenate(list(arrays())), k - 1)[k - 1]
        found = _between(arrays, k, value, value)
        assert found is not None
        return found
    sample = np.sort(_sample(arrays, sizes))
    rank = k * len(sample) / size
    margin = 6 * np.sqrt(rank * (1 - k / size)) + 6  # six standard deviations of the rank
    while True:
        low, high = int(rank - margin) - 1, int(rank + margin)
        found = _between(
            arrays, k, sample[low] if low >= 0 else -np.inf, sample[high] if high < len(sample) else np.inf
        )
        if found is not None:
            return found
        margin *= 8


def drop_last_ties(mask: np.ndarray, values: np.ndarray, value: Any, count: int) -> None:
    """Set the last `count` places of a mask to False whose values equal one value.

    Args:
        mask: A flat bool array; changed.
        values: Flat, of the same size.
        value: The value.
        count: How many, at most as many as there are.
    """
    for start in reversed(range(0, values.size, _PART)):
        if not count:
            return
        ties = np.flatnonzero(values[start : start + _PART] == value)[-count:]
        mask[start + ties] = False
        count -= len(ties)


def _sample(arrays: Arrays, sizes: Sequence[int]) -> np.ndarray:
    places = np.sort(np.random.default_rng(0).integers(0, sum(sizes), _SAMPLE))
    drawn, start = [], 0
    for array, size in zip(arrays(), sizes, strict=True):
        own = places[np.searchsorted(places, start) : np.searchsorted(places, start + size)]
        drawn.append(array[own - start])
        start += size
    return np.concatenate(drawn)


def _between(arrays: Arrays, k: int, low: Any, high: Any) -> KthLowest | None:
    """The k-th lowest, if it lies from `low` to `high`."""
    below: list[int] = []
    at_low: list[int] = []
    at_high: list[int] = []
    inside: list[np.ndarray] = []
    for array in arrays():
        parts = [array[start : start + _PART] for start in range(0, array.size, _PART)]
        counts, gathered = np.zeros(3, int), [array[:0]]
        for part in parts:
            counts += [np.count_nonzero(part < low), np.count_nonzero(part == low), np.count_nonzero(part == high)]
            if low < high:
                gathered.append(part[(part > low) & (part < high)])
        for found, count in zip((below, at_low, at_high), counts.tolist(), strict=True):
            found.append(count)
        inside.append(np.concatenate(gathered))
    before = sum(below)
    if k <= before:
        return None
    if k <= before + sum(at_low):
        return KthLowest(low, below, at_low)
    below = [a + b for a, b in zip(below, at_low, strict=True)]
    before, within = sum(below), np.concatenate(inside)
    if k <= before + within.size:
        value = np.partition(within, k - before - 1)[k - before - 1]
        lower = [a + int(np.count_nonzero(part < value)) for a, part in zip(below, inside, strict=True)]
        return KthLowest(value, lower, [int(np.count_nonzero(part == value)) for part in inside])
    if k <= before + within.size + sum(at_high):
        return KthLowest(high, [a + part.size for a, part in zip(below, inside, strict=True)], at_high)
    return None
