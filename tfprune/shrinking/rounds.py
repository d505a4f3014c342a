"""Pruning in one round or in several, with new scores, and if wanted training, between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.common.checks import check_count
from tfprune.granularity import Channel
from tfprune.graph import Analysis, ChannelGroup, analyse
from tfprune.graph.counting import SizeCounter
from tfprune.graph.groups import named
from tfprune.shrinking.choice import Amount, Choice
from tfprune.shrinking.cost_order import CostOrder
from tfprune.shrinking.judging import Judge
from tfprune.shrinking.order import ChannelOrder, RankedOrder, Scores
from tfprune.shrinking.removal import shrink
from tfprune.statistics import Statistics


@dataclass(frozen=True)
class Rounds:
    """In how many rounds a model is pruned, and what happens between them.

    What stays shrinks by the same factor in every round, and each round has new scores.

    Attributes:
        count: How many rounds.
        between: A function of the smaller model that trains it, in place, after every round but the last.

    Example:

    >>> Rounds(4, between=lambda model: model.fit(x, y, epochs=1)).count
    4
    """

    count: int
    between: Callable[[keras.Model], None] | None = None

    def __post_init__(self) -> None:
        check_count("rounds", self.count)
        if self.between is not None and not callable(self.between):
            raise TypeError(f"between must be a function that trains a model. Received: {self.between!r}.")


@dataclass(frozen=True)
class _Stage:
    """A model that is pruned in part.

    Attributes:
        model: The model as it is now.
        groups: Its groups that may be pruned, by name.
        kept: For each of them, which channels of the model at the beginning it still has.
    """

    model: keras.Model
    groups: Mapping[str, ChannelGroup]
    kept: Mapping[str, np.ndarray]

    def scores(self, judge: Judge, sizes: Mapping[str, int]) -> Scores:
        """The scores of all channels that there were at the beginning; those that have gone go first."""
        found = judge.scores(self.model, self.groups)
        counts, within = (
            [self._among_all(name, scores, sizes[name]) for name, scores in zip(self.groups, each, strict=True)]
            for each in (found.counts, found.within)
        )
        return Scores(counts, within)

    def _among_all(self, name: str, scores: np.ndarray, size: int) -> np.ndarray:
        every = np.full(size, -np.inf)
        every[self.kept[name]] = scores
        return every

    def shrunken(self, choice: Choice) -> tuple[keras.Model, dict[str, np.ndarray]]:
        """The model without what a choice removes, and which channels it still has."""
        kept = dict(zip(self.groups, choice.keep().values(), strict=True))
        keep = {group: np.flatnonzero(np.isin(self.kept[name], kept[name])) for name, group in self.groups.items()}
        return shrink(self.model, keep), kept

    def after(self, choice: Choice, judge: Judge, rounds: Rounds) -> "_Stage":
        """The next one: smaller, recalibrated and trained."""
        model, kept = self.shrunken(choice)
        judge.touch_up(model)
        if rounds.between is not None:
            rounds.between(model)
        groups = named(analyse(model).groups)
        return _Stage(model, {name: groups[name] for name in self.groups}, kept)


@dataclass(frozen=True)
class Pruning:
    """All that is decided before a model is looked at.

    Attributes:
        amount: How much goes.
        judge: Which channels matter.
        granularity: How many channels of a group may stay.
        rounds: In how many rounds.
    """

    amount: Amount
    judge: Judge
    granularity: Channel
    rounds: Rounds

    def __post_init__(self) -> None:
        if self.rounds.count > 1 and isinstance(self.judge.data, Statistics):
            raise ValueError(
                f"Statistics are those of the model as it is, and {self.rounds.count} rounds need those of every "
                "smaller one. Give the data, or one round."
            )

    def choose(self, analysis: Analysis, model: keras.Model) -> tuple[_Stage, Choice]:
        """Prune in all rounds but the last, and return what is left to be done in that one.

        Args:
            analysis: The analysis of the model.
            model: The model.
        """
        groups = {name: group for name, group in named(analysis.groups).items() if not group.frozen}
        sizes = {name: group.size for name, group in groups.items()}
        stage = _Stage(model, groups, {name: np.arange(size) for name, size in sizes.items()})
        count = SizeCounter(model, analysis, folds=True)
        for number in range(1, self.rounds.count + 1):
            order = self._order(analysis, stage.scores(self.judge, sizes), count)
            choice = self.amount.choose(analysis, order, count, number / self.rounds.count)
            if number < self.rounds.count:
                stage = stage.after(choice, self.judge, self.rounds)
        return stage, choice

    def _order(self, analysis: Analysis, scores: Scores, count: SizeCounter) -> ChannelOrder:
        ranking = self.judge.ranking
        if ranking.cost is not None:
            return CostOrder(scores, count.savings(ranking.cost), ranking, self.granularity)
        return RankedOrder(scores, ranking.pools(analysis.groups.free), ranking, self.granularity)
