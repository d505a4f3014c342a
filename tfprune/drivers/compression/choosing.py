"""Which channels a pass removes, and what makes up for them before any training."""

import contextlib
from typing import Any

import keras

from tfprune.granularity import Channel
from tfprune.reconstruction import reconstruct
from tfprune.shrinking.budget import Budget, OutOfReachError
from tfprune.shrinking.judging import MAX_SAMPLES, informed_ranking, informed_statistics
from tfprune.shrinking.one_shot import choose_widths, prune_channels
from tfprune.shrinking.widths import Widths
from tfprune.statistics import Statistics

_FLOORS = (0.25, 0.1, 0.0)
"""What of every group stays at least. Narrow places cost more accuracy than they save, so less only where it must."""


class Chooser:
    """Chooses channels by what data says of them, or by the norms of kernels.

    Args:
        data: Samples to gather statistics on and to repair with; in any form that can be read again.
        informed: Whether the data decides. Else norms of kernels do, at one ratio for all groups.
        granularity: Which numbers of channels may stay; None for any.
    """

    def __init__(self, data: Any, informed: bool, granularity: Channel | None = None) -> None:
        self._data, self._informed = data, informed
        self.granularity = granularity
        self._known: tuple[keras.Model, Statistics] | None = None

    def widths(self, model: keras.Model, budget: Budget) -> Widths:
        """Return the widths that fill a budget.

        Args:
            model: The model.
            budget: Limits that can be counted.

        Raises:
            OutOfReachError: If even the narrowest model is too large.
        """
        if not self._informed:
            return choose_widths(model, budget=budget, granularity=self.granularity)
        *floors, lowest = _FLOORS
        for floor in floors:
            with contextlib.suppress(OutOfReachError):
                return self._widths_above(floor, model, budget)
        return self._widths_above(lowest, model, budget)

    def _widths_above(self, floor: float, model: keras.Model, budget: Budget) -> Widths:
        return choose_widths(
            model,
            budget=budget,
            data=self._statistics(model),
            ranking=informed_ranking(budget, floor),
            granularity=self.granularity,
        )

    def pruned(self, model: keras.Model, widths: Widths) -> keras.Model:
        """Return a model with these widths, its channels the most important ones; nothing is repaired yet."""
        return prune_channels(model, widths, data=self._statistics(model) if self._informed else None)

    def repair(self, small: keras.Model, model: keras.Model) -> None:
        """Refit a smaller model, in place, to the one that it comes from: all but the layers that make the outputs.

        What is left of the features hardly differs from channel to channel, and the answers of the larger model take
        large weights of them: an output layer that is refitted is worth more at once, but trains badly.
        """
        reconstruct(small, model, self._data, layers="body", max_samples=MAX_SAMPLES)

    def _statistics(self, model: keras.Model) -> Statistics:
        """What the data says of a model; gathered once, as its weights do not change while channels are chosen."""
        if self._known is None or self._known[0] is not model:
            self._known = model, informed_statistics(model, self._data)
        return self._known[1]
