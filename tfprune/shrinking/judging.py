"""By which criteria, rankings and data channels are chosen: what is taken where nothing is said, and the scores."""

import numbers
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.criteria import (
    AnyChannelCriterion,
    ChannelCriterion,
    GroupFisher,
    as_channel_criterion,
    l2_norm,
)
from tfprune.criteria.base import KernelCriterion
from tfprune.data import Reader, inputs_of
from tfprune.graph import ChannelGroup, check_built
from tfprune.parts.ranking import AnyRanking, Cost, Ranking, as_ranking
from tfprune.reconstruction import reconstruct
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.choice import Amount
from tfprune.shrinking.order import Scores
from tfprune.shrinking.recalibration import batch_normalizations, recalibrate
from tfprune.statistics import Statistics, gather
from tfprune.statistics.gathering import known_statistics

MAX_SAMPLES = 1024
"""So many samples say enough about a model."""

_TEMPERATURE = 4.0
"""Of a trained classifier nearly all answers are sure, and their gradients next to nothing; this wakes the others."""


@dataclass(frozen=True)
class Judge:
    """What says which channels matter.

    Attributes:
        criterion: The criterion that says how many channels of each group go.
        within: The criterion that says which; the same one if the ranking has none.
        ranking: Which channels are compared.
        data: Data in any form that can be read again, statistics that are gathered already, or None.
    """

    criterion: ChannelCriterion
    within: ChannelCriterion
    ranking: Ranking
    data: Any

    @classmethod
    def of(
        cls,
        model: keras.Model,
        amount: Amount,
        criterion: AnyChannelCriterion | None,
        ranking: AnyRanking | None,
        data: Any,
    ) -> "Judge":
        """Return what arguments stand for, or raise if they contradict each other.

        Args:
            model: The model.
            amount: How much goes.
            criterion: The criterion, or None for the best that there is without or with data.
            ranking: The ranking, or None.
            data: The data, statistics or None.

        Raises:
            TypeError: If one has another type.
            ValueError: If the criterion needs data that there is not, or the ranking does not fit.
        """
        if ranking is None:
            ranking = (
                "local" if data is None or criterion is not None or amount.by_group else informed_ranking(amount.budget)
            )
        if criterion is None:
            criterion = l2_norm if data is None else GroupFisher(_TEMPERATURE)
        ranked = as_ranking(ranking)
        _check_ranking(amount, ranked)
        provided = data.names if isinstance(data, Statistics) else known_statistics()
        chosen = as_channel_criterion(criterion, provided)
        within = chosen if ranked.within is None else as_channel_criterion(ranked.within, provided)
        _check_criteria(chosen, within, ranked, data)
        return cls(chosen, within, ranked, _readable(data, model))

    @property
    def needs(self) -> frozenset[str]:
        """The statistics that the criteria read."""
        return frozenset([*self.criterion.needs, *self.within.needs])

    def check_data(self, repairs: bool) -> None:
        """Raise a ValueError if there is data that nothing would use.

        Args:
            repairs: Whether samples will repair a smaller model.
        """
        if self.data is None or self.needs or (self._has_samples and repairs):
            return
        raise ValueError(
            f"{_called(self.criterion)} reads weights only, and no model is repaired here, so data would not be used. "
            "Leave it out, or use a criterion that reads it, such as GroupFisher()."
        )

    def touch_up(self, model: keras.Model) -> None:
        """Recalibrate, in place, a smaller model of which more channels will go, where there is data."""
        if self._has_samples and batch_normalizations(model):
            recalibrate(model, self.data, max_samples=MAX_SAMPLES)

    def repair(self, small: keras.Model, model: keras.Model) -> None:
        """Make up, in place, for what a smaller model lacks, where there is data."""
        if self._has_samples:
            reconstruct(small, model, self.data, max_samples=MAX_SAMPLES)

    @property
    def _has_samples(self) -> bool:
        """Whether there is data, and not only what was gathered of it."""
        return self.data is not None and not isinstance(self.data, Statistics)

    def scores(self, model: keras.Model, groups: Mapping[str, ChannelGroup]) -> Scores:
        """Return the scores of the channels of some groups.

        Args:
            model: The model as it is now.
            groups: Groups of it by name.

        Raises:
            ValueError: If a statistic does not belong to the model, or says nothing about a group.
        """
        first, second = self._statistics(model)
        counts = self._scores_by(self.criterion, first, groups)
        return Scores(counts, counts if self.within is self.criterion else self._scores_by(self.within, second, groups))

    def _scores_by(
        self, criterion: ChannelCriterion, statistics: Statistics, groups: Mapping[str, ChannelGroup]
    ) -> list[np.ndarray]:
        for name, group in groups.items():
            _check_statistics(statistics, criterion, name, group)
        return [
            self.ranking.scores(group, criterion, statistics=statistics, name=name) for name, group in groups.items()
        ]

    def _statistics(self, model: keras.Model) -> tuple[Statistics, Statistics]:
        """What the two criteria need of the model as it is now; of one loss in one pass."""
        if isinstance(self.data, Statistics):
            return self.data, self.data
        first, second = self.criterion, self.within
        if not second.needs or (first.loss, first.temperature) == (second.loss, second.temperature):
            found = _gathered(model, self.data, first, self.needs)
            return found, found
        return _gathered(model, self.data, first, first.needs), _gathered(model, self.data, second, second.needs)


def informed_statistics(model: keras.Model, data: Any) -> Statistics:
    """Return what the criterion reads that decides where there is data and no other is given."""
    criterion = GroupFisher(_TEMPERATURE)
    return _gathered(model, data, criterion, criterion.needs)


def _gathered(model: keras.Model, data: Any, criterion: ChannelCriterion, needs: Collection[str]) -> Statistics:
    if not needs:
        return Statistics(0)
    return gather(model, data, needs, loss=criterion.loss, temperature=criterion.temperature, max_samples=MAX_SAMPLES)


def informed_ranking(budget: Budget | None, floor: float | None = None) -> Ranking:
    """Return the best that is known for Fisher information, where nobody has said how many channels of each group go.

    Args:
        budget: What is to be met; None for a ratio.
        floor: What of every group stays at least; None for the ranking's own.
    """
    cost: Cost = "macs" if budget is None or budget.macs is not None else "parameters"
    return Ranking("global", normalize="none", cost=cost, floor=floor)


def _check_ranking(amount: Amount, ranking: Ranking) -> None:
    if amount.by_group and ranking.scope != "local":
        raise ValueError(
            f"ranking={ranking.scope!r} decides how many channels of each group go, and so does "
            f"ratio={amount.ratio!r}. Give a ratio for all groups, or leave ranking out."
        )
    if isinstance(amount.ratio, numbers.Real) and amount.ratio > 1 - ranking.least:
        raise ValueError(
            f"ratio={amount.ratio:g} removes more than the floor of the ranking allows, which keeps "
            f"{ranking.least:g} of every group. Lower the ratio, or the floor: Ranking(..., floor=0.1)."
        )


def _check_criteria(chosen: ChannelCriterion, within: ChannelCriterion, ranking: Ranking, data: Any) -> None:
    for each in (chosen, within):
        if each.needs and data is None:
            raise ValueError(
                f"{type(each).__name__} needs {', '.join(map(repr, each.needs))}, which data says. Give data=, some "
                "hundred samples in any form that fit takes, or use a criterion of the weights, such as GroupNorm()."
            )
    if ranking.cost and ranking.normalize == "none" and not chosen.comparable:
        raise ValueError(
            f"Scores of {_called(chosen)} are not comparable across groups, and per {ranking.cost} they choose worse "
            "than chance. Use one that is, such as GroupFisher() with data=, or set `comparable = True` in your own; "
            "or leave out the ranking's cost."
        )


def _called(criterion: ChannelCriterion) -> str:
    """What a criterion is called in messages: a plain function by its own name."""
    return repr(criterion) if isinstance(criterion, KernelCriterion) else type(criterion).__name__


def _check_statistics(statistics: Statistics, criterion: ChannelCriterion, name: str, group: ChannelGroup) -> None:
    for needed in criterion.needs:
        if needed not in statistics.channels:
            continue
        array = statistics.channels[needed].get(name)
        if array is None:
            raise ValueError(
                f"{type(criterion).__name__} cannot score {name!r}: there is no {needed!r} of its channels, as they "
                "come out of no layer whole. Leave its layers out with `exclude`, or use a criterion of the weights, "
                "such as GroupNorm()."
            )
        if len(array) != group.size:
            raise ValueError(
                f"The statistics are of another model: they have {len(array)} channels of {name!r}, and the model has "
                f"{group.size}. Gather them of this one."
            )


def _readable(data: Any, model: keras.Model) -> Any:
    """Data that can be read several times, checked; of a generator, which can be read once, what is needed is kept."""
    if data is None or isinstance(data, Statistics):
        return data
    check_built(model)
    reader = Reader(data, inputs_of(model), max_samples=MAX_SAMPLES)
    if not isinstance(data, Iterator):
        return data
    return [tuple(part for part in batch if part is not None) for batch in reader]
