"""In which order channels go: from scores to the channels that stay at a ratio, or at any widths.

Scores enter here, and nowhere else: one array for each group, and which groups are ranked together.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.granularity import Channel
from tfprune.parts.channels import order_of_going
from tfprune.parts.ranking import Ranking
from tfprune.shrinking.budget import Steps


@dataclass(frozen=True)
class Scores:
    """The scores of the channels of free groups, one array for each group; higher means keep, infinite ones stay.

    Attributes:
        counts: Those that say how many channels of each group go.
        within: Those that say which of a group.
    """

    counts: Sequence[np.ndarray]
    within: Sequence[np.ndarray]


class ChannelOrder(ABC):
    """The channels of free groups, ranked. Within a group the lowest scores go first, of equal ones the later.

    Args:
        scores: The scores.
        ranking: Makes the scores of several groups comparable.
        granularity: Which numbers of channels may stay.

    Raises:
        ValueError: If a score is NaN.
    """

    def __init__(self, scores: Scores, ranking: Ranking, granularity: Channel) -> None:
        self.sizes = np.array([len(score) for score in scores.counts])
        self._ranking, self._granularity = ranking, granularity
        self._going = [order_of_going(score) for score in scores.within]
        relative = [ranking.normalized(score) for score in scores.counts]
        self._ascending = [each[order_of_going(score)] for each, score in zip(relative, scores.counts, strict=True)]

    @abstractmethod
    def at_ratio(self, ratios: float | Sequence[float]) -> np.ndarray:
        """Return how many channels of each group stay when a ratio goes, rounded down.

        Args:
            ratios: The fraction of all channels that are ranked together; one for all, or one for each group if each is
                ranked alone.

        Returns:
            The width of each group; an int array.
        """

    @abstractmethod
    def steps(self) -> Steps:
        """Return the order in which channels come back: those that would go last come first."""

    def removed(self, widths: np.ndarray) -> list[np.ndarray]:
        """Return for each group the channels that go so that so many stay."""
        gone = self.sizes - widths
        return [going[:count] for going, count in zip(self._going, gone.tolist(), strict=True)]

    def _width(self, group: int, wanted: int) -> int:
        size, most = int(self.sizes[group]), min(len(self._going[group]), len(self._ascending[group]))
        return size - min(self._ranking.allow(size, wanted, self._granularity), most)


class RankedOrder(ChannelOrder):
    """Across the groups of a pool, scores that the ranking makes comparable decide how many of each group go.

    Args:
        scores: The scores.
        pools: Numbers of the groups that are ranked together; each group is in one pool.
        ranking: Makes the scores of several groups comparable.
        granularity: Which numbers of channels may stay.
    """

    def __init__(self, scores: Scores, pools: Sequence[Sequence[int]], ranking: Ranking, granularity: Channel) -> None:
        super().__init__(scores, ranking, granularity)
        self._ranks = list[np.ndarray](scores.counts)  # of each group's channels in its pool, the first to go first
        self._pool_sizes = np.zeros(len(self.sizes), int)
        for pool in pools:
            for group, ranks in zip(pool, ranking.ranks(scores.counts, pool), strict=True):
                self._ranks[group], self._pool_sizes[group] = ranks, self.sizes[list(pool)].sum()

    def at_ratio(self, ratios: float | Sequence[float]) -> np.ndarray:
        """Return how many channels of each group stay when a ratio of each pool goes."""
        each = np.broadcast_to(np.asarray(ratios, float), self.sizes.shape)
        gone = [
            int(np.searchsorted(ranks, Channel().count(int(size), float(ratio))))
            for ranks, size, ratio in zip(self._ranks, self._pool_sizes, each, strict=True)
        ]
        return np.array([self._width(group, wanted) for group, wanted in enumerate(gone)])

    def steps(self) -> Steps:
        """Return the order in which channels come back: those that would go last at a rising ratio come first."""
        found, narrowest = [], []
        for group, ascending in enumerate(self._ascending):
            widths = [self._width(group, wanted) for wanted in range(len(ascending) + 1)]
            narrowest.append(widths[-1])
            for wanted in range(len(ascending), 0, -1):
                if widths[wanted - 1] > widths[wanted]:
                    ratio = (self._ranks[group][wanted - 1] + 1) / self._pool_sizes[group]
                    best = ascending[self.sizes[group] - widths[wanted] - 1]
                    found.append((ratio, best, group, widths[wanted - 1]))
        found.sort(key=lambda step: (-step[0], -step[1], step[2]))
        groups, widths = ([step[column] for step in found] for column in (2, 3))
        return Steps(np.array(narrowest, int), np.array(groups, int), np.array(widths, int))
