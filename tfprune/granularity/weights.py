"""Granularities within a kernel: single weights, blocks, and n of every m."""

from dataclasses import dataclass

import numpy as np

from tfprune.granularity.base import Granularity
from tfprune.granularity.ranks import refuse_nan


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

    A weight of score -inf is gone already and adds nothing to its block.

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
        gone = np.isneginf(scores)
        means = np.where(gone, 0, scores) if gone.any() else scores
        for along, size in self._sizes(axis):
            starts = np.arange(0, scores.shape[along], size)
            means = np.add.reduceat(means, starts, axis=along, dtype=np.float64)
            real = np.diff(np.append(starts, scores.shape[along]))
            means /= real[:, None] if along == -2 else real
            gone = np.logical_and.reduceat(gone, starts, axis=along)
        means[gone] = -np.inf
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
        refuse_nan(scores)
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
