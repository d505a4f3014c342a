"""In which order channels go: from scores to the channels that stay at a ratio, or at any widths.

Scores enter here, and nowhere else: one array for each group, and which groups are ranked together.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tfprune.granularity import Channel, prune_lowest
from tfprune.graph import ChannelGroup
from tfprune.shrinking.budget import Steps

Ranking = Literal["local", "global", "structure"]
"""Which channels are ranked against each other: those of one group, all, or those of groups alike in structure."""


class ChannelOrder:
    """The channels of free groups, ranked.

    Within a group the lowest scores go first, of equal ones the later. Across the groups of a pool, scores relative
    to their group's mean decide how many of each group go. Infinite scores stay.

    Args:
        scores: For each group, one score per channel; higher means keep.
        pools: Numbers of the groups that are ranked together; each group is in one pool.
        granularity: Which numbers of channels may stay.

    Raises:
        ValueError: If a score is NaN.
    """

    def __init__(self, scores: Sequence[np.ndarray], pools: Sequence[Sequence[int]], granularity: Channel) -> None:
        self.sizes = np.array([len(score) for score in scores])
        self._granularity = granularity
        self._going = [_going(score) for score in scores]
        self._relative = [relative_scores(score) for score in scores]
        self._ranks = list[np.ndarray](scores)  # of each group's channels in its pool, the first to go first
        self._pool_sizes = np.zeros(len(scores), int)
        for pool in pools:
            joined = np.concatenate([self._relative[group] for group in pool])
            prune_lowest(joined, 0)  # refuses NaN
            ranks = np.full(len(joined), -1)
            going = _going(joined)
            ranks[going] = np.arange(len(going))
            for group, own in zip(pool, np.split(ranks, np.cumsum(self.sizes[list(pool)])[:-1]), strict=True):
                self._ranks[group], self._pool_sizes[group] = np.sort(own[own >= 0]), len(joined)

    def at_ratio(self, ratios: float | Sequence[float]) -> np.ndarray:
        """Return how many channels of each group stay when a ratio goes, rounded down.

        Args:
            ratios: The fraction of all channels of a pool; one for all, or one for each group if no pool has several.

        Returns:
            The width of each group; an int array.
        """
        each = np.broadcast_to(np.asarray(ratios, float), self.sizes.shape)
        gone = [
            int(np.searchsorted(ranks, Channel().count(int(size), float(ratio))))
            for ranks, size, ratio in zip(self._ranks, self._pool_sizes, each, strict=True)
        ]
        return np.array([self._width(group, wanted) for group, wanted in enumerate(gone)])

    def steps(self) -> Steps:
        """Return the order in which channels come back: those that would go last at a rising ratio come first."""
        found, narrowest = [], []
        for group, going in enumerate(self._going):
            widths = [self._width(group, wanted) for wanted in range(len(going) + 1)]
            narrowest.append(widths[-1])
            for wanted in range(len(going), 0, -1):
                if widths[wanted - 1] > widths[wanted]:
                    ratio = (self._ranks[group][wanted - 1] + 1) / self._pool_sizes[group]
                    best = self._relative[group][going[self.sizes[group] - widths[wanted] - 1]]
                    found.append((ratio, best, group, widths[wanted - 1]))
        found.sort(key=lambda step: (-step[0], -step[1], step[2]))
        groups, widths = ([step[column] for step in found] for column in (2, 3))
        return Steps(np.array(narrowest, int), np.array(groups, int), np.array(widths, int))

    def removed(self, widths: np.ndarray) -> list[np.ndarray]:
        """Return for each group the channels that go so that so many stay."""
        gone = self.sizes - widths
        return [going[:count] for going, count in zip(self._going, gone.tolist(), strict=True)]

    def _width(self, group: int, wanted: int) -> int:
        size = int(self.sizes[group])
        return size - min(self._granularity.allow(size, wanted), len(self._going[group]))


def pools_of(groups: Sequence[ChannelGroup], ranking: Ranking) -> list[list[int]]:
    """Return which groups are ranked together.

    Args:
        groups: The groups.
        ranking: See `Ranking`.

    Returns:
        Numbers of groups, one list for each pool.
    """
    if ranking == "local":
        return [[index] for index in range(len(groups))]
    if ranking == "global":
        return [list(range(len(groups)))]
    pools: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for index, group in enumerate(groups):
        kinds = tuple(f"{type(member.layer).__name__} {member.role} {member.axis}" for member in group.members)
        pools.setdefault((group.size, kinds), []).append(index)
    return list(pools.values())


def relative_scores(scores: np.ndarray) -> np.ndarray:
    """Return scores relative to the mean of the finite ones, by which groups are compared.

    Args:
        scores: The scores of one group.

    Returns:
        An array of the same length.

    Example:

    >>> relative_scores(np.array([1.0, 3.0, np.inf]))
    array([0.5, 1.5, inf])
    """
    finite = scores[np.isfinite(scores)]
    mean = finite.mean() if finite.size else 1.0
    return scores / mean if mean > 0 else scores


def _going(scores: np.ndarray) -> np.ndarray:
    """Which channels may go, the first to go first."""
    order = np.lexsort((-np.arange(len(scores)), scores))
    return order[scores[order] < np.inf]
