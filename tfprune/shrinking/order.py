"""In which order channels go: from scores to the channels that stay at a ratio, or at any widths.

Scores enter here, and nowhere else: one array for each group, and which groups are ranked together.
"""

from collections.abc import Sequence

import numpy as np

from tfprune.granularity import Channel
from tfprune.parts.channels import order_of_going
from tfprune.parts.ranking import Ranking
from tfprune.shrinking.budget import Steps


class ChannelOrder:
    """The channels of free groups, ranked.

    Within a group the lowest scores go first, of equal ones the later. Across the groups of a pool, scores that the
    ranking makes comparable decide how many of each group go. Infinite scores stay.

    Args:
        scores: For each group, one score per channel; higher means keep.
        pools: Numbers of the groups that are ranked together; each group is in one pool.
        ranking: Makes the scores of several groups comparable.
        granularity: Which numbers of channels may stay.

    Raises:
        ValueError: If a score is NaN.
    """

    def __init__(
        self,
        scores: Sequence[np.ndarray],
        pools: Sequence[Sequence[int]],
        ranking: Ranking,
        granularity: Channel,
    ) -> None:
        self.sizes = np.array([len(score) for score in scores])
        self._granularity = granularity
        self._going = [order_of_going(score) for score in scores]
        self._relative = [ranking.normalized(score) for score in scores]
        self._ranks = list[np.ndarray](scores)  # of each group's channels in its pool, the first to go first
        self._pool_sizes = np.zeros(len(scores), int)
        for pool in pools:
            for group, ranks in zip(pool, ranking.ranks(scores, pool), strict=True):
                self._ranks[group], self._pool_sizes[group] = ranks, self.sizes[list(pool)].sum()

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
