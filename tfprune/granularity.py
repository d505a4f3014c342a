"""What is pruned together, and how many: from scores to a mask with an exact count."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Channel:
    """Prune whole channels.

    Attributes:
        min_channels: How many channels always stay.
        round_to: Keep a multiple of this many channels, rounding up so that never more go than asked for. Phones
            compute 8 at a time, so 8 is a good value there.

    Example:

    >>> Channel().mask(np.array([0.3, 0.1, 0.2, 0.1]), sparsity=0.5)
    array([ True, False,  True, False])
    """

    min_channels: int = 1
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.min_channels < 1:
            raise ValueError(
                f"min_channels must be at least 1, or a layer would vanish. Received: {self.min_channels}."
            )
        if self.round_to < 1:
            raise ValueError(f"round_to must be at least 1, which does not round. Received: {self.round_to}.")

    def count(self, size: int, sparsity: float) -> int:
        """Return how many of `size` channels go: `size * sparsity` rounded down, as the papers do.

        Args:
            size: The number of channels.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            The number of channels to prune; `min_channels` always stay.
        """
        return self.allow(size, floor_share(size, sparsity))

    def allow(self, size: int, wanted: int) -> int:
        """Return how many of `size` channels go when `wanted` should, by `min_channels` and `round_to`.

        Args:
            size: The number of channels.
            wanted: How many should go.

        Returns:
            How many go, at most `wanted`.

        Example:

        >>> Channel(round_to=8).allow(size=32, wanted=13)
        8
        """
        keep = max(size - wanted, self.min_channels)
        keep = math.ceil(keep / self.round_to) * self.round_to
        return max(0, size - keep)

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Return which channels stay: all but the `count` lowest scores, the later one going first in a tie.

        Args:
            scores: One score per channel; higher means keep.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            One bool per channel, True for those that stay.

        Raises:
            ValueError: If a score is NaN.
        """
        return prune_lowest(scores, self.count(len(scores), sparsity))


@dataclass(frozen=True)
class Granularity(ABC):
    """What is pruned together within a kernel: single weights, blocks, or some of every few."""

    @abstractmethod
    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the scores of the units that are pruned together.

        Args:
            scores: One score per weight; higher means keep, +inf must stay.
            axis: The kernel's input axis: -2 in Keras, -1 in transposed convolutions.

        Returns:
            One score per unit, an array of the same rank; +inf for units that must stay.
        """

    def expand(self, kept: np.ndarray, shape: tuple[int, ...], axis: int = -2) -> np.ndarray:
        """Return the mask of a kernel of this `shape` whose units are kept or not.

        Args:
            kept: One bool per unit.
            shape: The kernel's shape.
            axis: The kernel's input axis.

        Returns:
            One bool per weight, True for those that stay.
        """
        return kept

    def check_sparsity(self, sparsity: float) -> None:
        """Raise a ValueError if no kernel could have this sparsity."""
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1). Received: {sparsity}.")

    def mask(self, scores: np.ndarray, sparsity: float, axis: int = -2) -> np.ndarray:
        """Return which weights stay when the fraction `sparsity` of the units goes, rounded down.

        Args:
            scores: One score per weight; higher means keep, +inf must stay.
            sparsity: The fraction of units to prune, in [0, 1). Fewer go where more must stay.
            axis: The kernel's input axis: -2 in Keras, -1 in transposed convolutions.

        Returns:
            One bool per weight, True for those that stay.

        Raises:
            ValueError: If a score is NaN, or `sparsity` or the kernel's shape does not fit the granularity.
        """
        self.check_sparsity(sparsity)
        units = self.units(scores, axis)
        count = min(floor_share(units.size, sparsity), int(np.count_nonzero(units < np.inf)))
        return self.expand(prune_lowest(units, count), scores.shape, axis)


@dataclass(frozen=True)
class Unstructured(Granularity):
    """Prune single weights.

    Example:

    >>> Unstructured().mask(np.array([[0.3, 0.1], [0.2, 0.4]]), sparsity=0.5)
    array([[ True, False],
           [False,  True]])
    """

    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the scores as they are: every weight is a unit."""
        return scores


@dataclass(frozen=True)
class Block(Granularity):
    """Prune blocks of weights, by the mean of their scores; at the border of a kernel a block may be smaller.

    Attributes:
        shape: How many inputs and how many outputs a block has. The other axes of a kernel are not grouped.

    Example:

    >>> Block((1, 2)).mask(np.array([[4.0, 1.0, 2.0], [0.0, 3.0, 9.0]]), sparsity=0.5)
    array([[ True,  True, False],
           [False, False,  True]])
    """

    shape: tuple[int, int]

    def __post_init__(self) -> None:
        sizes = self.shape if isinstance(self.shape, tuple | list) else ()
        if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise ValueError(f"shape must be two integers of at least 1, such as (4, 1). Received: {self.shape!r}.")

    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the mean score of each block, as float64; see `Granularity.units`."""
        if scores.ndim < 2 or axis not in (-2, -1):
            raise ValueError(
                "Blocks lie in the last two axes of a kernel, one of which is the input axis. "
                f"Received: scores of shape {scores.shape} and axis={axis}. Use Unstructured() for a vector."
            )
        means = scores
        for along, size in self._sizes(axis):
            starts = np.arange(0, scores.shape[along], size)
            means = np.add.reduceat(means, starts, axis=along, dtype=np.float64)
            real = np.diff(np.append(starts, scores.shape[along]))
            means /= real[:, None] if along == -2 else real
        return means

    def expand(self, kept: np.ndarray, shape: tuple[int, ...], axis: int = -2) -> np.ndarray:
        """Return the mask of a kernel of this `shape`; see `Granularity.expand`."""
        for along, size in self._sizes(axis):
            kept = kept.repeat(size, axis=along)
        return kept[..., : shape[-2], : shape[-1]]

    def _sizes(self, axis: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the two grouped axes and the size of a block along each."""
        return (axis, self.shape[0]), (-3 - axis, self.shape[1])


@dataclass(frozen=True)
class NofM(Granularity):
    """Keep at most n of every m consecutive inputs, such as 2 of 4, which sparse matrix units compute faster.

    The units are single weights, and the n best of a group must stay. A sparsity below `1 - n / m` prunes only the
    lowest of the others; at that sparsity the pattern holds everywhere. A short last group counts as filled up with
    zeros that are pruned already: of r weights, r - n may go.

    Reference: Zhou et al., Learning N:M Fine-grained Structured Sparse Neural Networks, ICLR 2021,
    https://arxiv.org/abs/2102.04010

    Attributes:
        n: How many of a group stay at most.
        m: How many consecutive inputs are a group.

    Example:

    >>> NofM(1, 2).mask(np.array([[0.3, 0.1], [0.2, 0.4], [0.1, 0.1]]), sparsity=0.5)
    array([[ True, False],
           [False,  True],
           [ True,  True]])
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"NofM needs 0 < n < m, such as NofM(2, 4). Received: n={self.n}, m={self.m}.")

    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the scores with +inf for the n best of each group, of equal ones the earlier."""
        if not -scores.ndim <= axis < scores.ndim:
            raise ValueError(
                f"NofM groups weights along the input axis. Received: scores of shape {scores.shape} and axis={axis}. "
                "Use Unstructured() for a vector."
            )
        _refuse_nan(scores)
        inputs_last = np.moveaxis(scores, axis, -1)
        missing = -inputs_last.shape[-1] % self.m
        pad = [(0, 0)] * (scores.ndim - 1) + [(0, missing)]
        lowest_first = np.pad(-1.0 * inputs_last, pad, constant_values=np.inf)
        groups = lowest_first.reshape(-1, self.m)
        best = np.argsort(groups, axis=-1, kind="stable")[:, : self.n]
        np.put_along_axis(groups, best, -np.inf, axis=-1)
        return np.moveaxis(-groups.reshape(lowest_first.shape)[..., : inputs_last.shape[-1]], -1, axis)

    def check_sparsity(self, sparsity: float) -> None:
        """Raise a ValueError if `sparsity` is above the pattern's."""
        super().check_sparsity(sparsity)
        if sparsity > 1 - self.n / self.m + 1e-9:
            raise ValueError(
                f"{self.n} of every {self.m} stay, so at most {1 - self.n / self.m:.6g} can be pruned. "
                f"Received: sparsity={sparsity}. Lower it, or choose another pattern."
            )


def floor_share(size: int, fraction: float) -> int:
    """Return `size * fraction` rounded down, as the papers do.

    Args:
        size: How many there are.
        fraction: The part of them, in [0, 1].

    Returns:
        The number that the part is.

    Example:

    >>> floor_share(100, 0.29)  # although 100 * 0.29 is 28.999999999999996
    29
    """
    return math.floor(round(size * fraction, 9))


def prune_lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return a mask that is False for exactly the `count` lowest scores; of equal scores the later one goes.

    Args:
        scores: Scores of any shape.
        count: How many to prune, 0 <= count <= scores.size.

    Returns:
        A bool array of the same shape.

    Raises:
        ValueError: If a score is NaN, which has no rank.

    Example:

    >>> prune_lowest(np.array([2.0, 1.0, 1.0]), 1)
    array([ True,  True, False])
    """
    _refuse_nan(scores)
    if count == 0:
        return np.ones(scores.shape, bool)
    flat = scores.ravel()
    threshold = np.partition(flat, count - 1)[count - 1]
    mask = flat >= threshold
    ties = np.flatnonzero(flat == threshold)
    surplus = count - (flat.size - np.count_nonzero(mask))
    mask[ties[ties.size - surplus :]] = False
    return mask.reshape(scores.shape)


def _refuse_nan(scores: np.ndarray) -> None:
    if np.isnan(scores).any():
        raise ValueError(
            "Some scores are NaN, so they cannot be ranked. "
            "The weights are probably NaN: lower the learning rate or clip gradients (clipnorm=1.0)."
        )
