"""In which order channels go where what they are worth is weighed by what they cost."""

import functools
import heapq
from collections.abc import Sequence

import numpy as np

from tfprune.granularity import Channel
from tfprune.graph.counting import Savings
from tfprune.parts.ranking import Ranking
from tfprune.shrinking.budget import Steps
from tfprune.shrinking.order import ChannelOrder, Scores


class CostOrder(ChannelOrder):
    """From full widths on, again and again, the channel goes whose score is lowest relative to what is saved by it.

    What is saved is that at the widths by then: a channel costs less when there are fewer of those that it is made of
    and read by. So no ratio of score to cost ever falls while other channels go, and only the lowest one has to be
    computed anew before it is taken. Where several channels go in one step, their scores are added.

    Args:
        scores: The scores; those that say how many channels go must not be negative.
        savings: What the model saves; it is used up.
        ranking: Makes the scores of several groups comparable.
        granularity: Which numbers of channels may stay.

    Raises:
        ValueError: If a score is NaN or negative.
    """

    def __init__(self, scores: Scores, savings: Savings, ranking: Ranking, granularity: Channel) -> None:
        super().__init__(scores, ranking, granularity)
        if any((values[np.isfinite(values)] < 0).any() for values in self._ascending):
            raise ValueError(
                "Scores that are weighed by cost must not be negative, or what costs most would stay. Use the absolute "
                "or squared value, or leave out the ranking's cost."
            )
        self._savings = savings

    def at_ratio(self, ratios: float | Sequence[float]) -> np.ndarray:
        """Return how many channels of each group stay when a ratio of all channels goes."""
        wanted = Channel().count(int(self.sizes.sum()), float(np.asarray(ratios)))
        widths = self.sizes.copy()
        for group, width in self._taken:
            wanted -= int(widths[group]) - width
            if wanted < 0:
                break
            widths[group] = width
        return widths

    def steps(self) -> Steps:
        """Return the order in which channels come back: those that go last come first."""
        narrowest, wider, groups = self.sizes.copy(), [], []
        for group, width in self._taken:
            groups.append(group)
            wider.append(int(narrowest[group]))
            narrowest[group] = width
        return Steps(narrowest, np.array(groups[::-1], int), np.array(wider[::-1], int))

    @functools.cached_property
    def _taken(self) -> list[tuple[int, int]]:
        """The steps from full widths to the narrowest, in order: a group, and its width afterwards."""
        left = [self._widths(group) for group in range(len(self.sizes))]
        heap = [(self._worth(group, 0, widths[0]), group) for group, widths in enumerate(left) if widths]
        heapq.heapify(heap)
        now, taken = [0] * len(left), []
        while heap:
            _, group = heap[0]
            gone, width = now[group], left[group][0]
            heapq.heapreplace(heap, (self._worth(group, gone, width), group))
            if heap[0][1] != group:
                continue  # other channels have gone since it was computed, and by now another group is lowest
            heapq.heappop(heap)
            now[group] = int(self.sizes[group]) - width
            self._savings.take(group, self._going[group][gone : now[group]])
            taken.append((group, left[group].pop(0)))
            if left[group]:
                heapq.heappush(heap, (self._worth(group, now[group], left[group][0]), group))
        return taken

    def _widths(self, group: int) -> list[int]:
        """The widths that a group may have, from the first below the full one on."""
        widths = (self._width(group, wanted) for wanted in range(len(self._ascending[group]) + 1))
        return sorted({*widths} - {int(self.sizes[group])}, reverse=True)

    def _worth(self, group: int, gone: int, width: int) -> float:
        """The score of the channels of a step relative to what it saves."""
        end = int(self.sizes[group]) - width
        score = float(self._ascending[group][gone:end].sum())
        if score == -np.inf:
            return score
        saved = self._savings.of(group, self._going[group][gone:end])
        return score / saved if saved > 0 else np.inf
