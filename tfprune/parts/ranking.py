"""From a criterion to the channels that stay: which are compared, and how their scores become comparable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from tfprune.common.checks import check_choice
from tfprune.criteria import AnyChannelCriterion, ChannelCriterion, ChannelScores, ChannelView, as_channel_criterion
from tfprune.granularity import Channel
from tfprune.graph import ChannelGroup
from tfprune.parts.channels import drop_lowest, order_of_going, view_of, zero_channels
from tfprune.parts.normalizations import NORMALIZATIONS
from tfprune.statistics import Statistics

Scope = Literal["local", "global", "structure"]
Reduce = Literal["mean", "sum", "max", "product"]
Normalize = Literal["mean", "max", "lamp", "none"]
Cost = Literal["macs", "parameters"]
Share: TypeAlias = tuple[AnyChannelCriterion, float]
"""A criterion, and the fraction of all channels that goes by it."""


@dataclass(frozen=True)
class Ranking:
    """Which channels are ranked against each other, and how their scores are made comparable.

    Attributes:
        scope: `"local"` for the channels of each group, so that every group loses the same share; `"global"` for all
            channels; `"structure"` for those of groups that are made of the same layers, as repeated blocks are.
        reduce: What makes one score of several where a criterion scores several kernels or gammas of a channel
            apart: `"mean"`, `"sum"`, `"max"` or `"product"`.
        normalize: What scores are divided by before groups are compared: `"mean"` or `"max"` of the group, or
            `"none"`. `"lamp"` divides the square of a score by the sum of the squares of all in the group that are
            at least as large, after Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021,
            https://arxiv.org/abs/2010.07611: the share of what is left that would go. Only differences between
            groups change, never the order within one.
        cost: `"macs"` or `"parameters"` weighs what a channel is worth by what it costs, for a `"global"` ranking:
            again and again the channel goes whose score is lowest relative to what the model saves by it at its widths
            by then, after Liu et al., Group Fisher Pruning, ICML 2021, https://arxiv.org/abs/2108.00708. Without
            normalization only for criteria that are `comparable`. Only where whole models are pruned at once.
        floor: The fraction of every group that always stays; if left out, a quarter with `cost`, else nothing but what
            the granularity says.
        within: The criterion that says which channels of a group go, where another one says how many; if left out, one
            says both.

    Example:

    >>> Ranking("global", normalize="lamp").normalized(np.array([1.0, 2.0, 2.0]))
    array([0.11111111, 0.5       , 0.5       ])
    """

    scope: Scope = "local"
    reduce: Reduce = "mean"
    normalize: Normalize = "mean"
    cost: Cost | None = None
    floor: float | None = None
    within: AnyChannelCriterion | None = None

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, get_args(Scope))
        check_choice("reduce", self.reduce, get_args(Reduce))
        check_choice("normalize", self.normalize, get_args(Normalize))
        if self.cost is not None:
            check_choice("cost", self.cost, get_args(Cost))
            if self.scope != "global":
                raise ValueError(
                    f"cost={self.cost!r} compares the channels of all groups. Use Ranking('global', normalize='none', "
                    f"cost={self.cost!r}). Received: scope={self.scope!r}."
                )
        if self.floor is not None and not 0 <= self.floor <= 1:
            raise ValueError(f"floor is the fraction of a group that stays, in [0, 1]. Received: {self.floor!r}.")

    @property
    def least(self) -> float:
        """The fraction of every group that always stays."""
        return (_FLOOR if self.cost else 0.0) if self.floor is None else self.floor

    def allow(self, size: int, wanted: int, granularity: Channel) -> int:
        """Return how many of `size` channels go when `wanted` should, by the floor and the granularity.

        Args:
            size: The number of channels of a group.
            wanted: How many should go.
            granularity: How many channels a group keeps at least, and a multiple of how many.

        Returns:
            How many go, at most `wanted`.

        Example:

        >>> Ranking("global", floor=0.25).allow(size=10, wanted=9, granularity=Channel())
        7
        """
        return granularity.allow(size, min(wanted, size - math.ceil(round(self.least * size, 9))))

    def scores(
        self,
        group: ChannelGroup,
        criterion: AnyChannelCriterion,
        among: np.ndarray | None = None,
        *,
        statistics: Statistics | None = None,
        name: str | None = None,
    ) -> np.ndarray:
        """Score the channels of a group.

        Channels that are zero already score lowest (a criterion that measures distances would not know), and the best
        channel of a layer that holds only a part of the group scores highest, so that the layer cannot vanish.

        Args:
            group: The channel group.
            criterion: The criterion; it sees only the channels asked for.
            among: Which channels to score and compare, as a bool per channel of the group; all if left out.
            statistics: What data says about the model, for criteria that need it.
            name: What the statistics call the group; its own name if left out.

        Returns:
            One float64 score per channel of the group; infinite for those not asked for.

        Raises:
            TypeError: If the criterion is none.
            ValueError: If it does not return one score per channel, or needs statistics that are not there.
        """
        statistics = statistics or Statistics(0)
        criterion = as_channel_criterion(criterion, statistics.names)
        among = np.ones(group.size, bool) if among is None else among
        view = view_of(group, among, statistics.of_group(name or group.name), statistics.of_variable)
        scores = np.full(group.size, np.inf)
        scores[among] = self._reduced(criterion.score(view), view, criterion)
        scores[zero_channels(group.producers, group.size) & among] = -np.inf
        for member in group.members:
            if len(np.unique(member.channels)) < group.size:
                scores[member.channels[np.argmax(scores[member.channels])]] = np.inf
        return scores

    def pools(self, groups: Sequence[ChannelGroup]) -> list[list[int]]:
        """Return which groups are ranked together, by their places in the sequence."""
        if self.scope == "local":
            return [[index] for index in range(len(groups))]
        if self.scope == "global":
            return [list(range(len(groups)))]
        pools: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for index, group in enumerate(groups):
            kinds = tuple(f"{type(member.layer).__name__} {member.role} {member.axis}" for member in group.members)
            pools.setdefault((group.size, kinds), []).append(index)
        return list(pools.values())

    def normalized(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores of one group on a scale on which those of several groups can be compared.

        Args:
            scores: One score per channel; infinite ones stay, and do not count.

        Returns:
            One score per channel.

        Raises:
            ValueError: If a score is negative and `normalize` is `"lamp"`.
        """
        return NORMALIZATIONS[self.normalize](scores, np.isfinite(scores))

    def choose(
        self,
        groups: Sequence[ChannelGroup],
        shares: Sequence[Share],
        granularity: Channel | None = None,
        left: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """Choose the channels that stay: share by share, each among those that the last one left.

        Channels that are zero already go first, so pruning again at the same sparsity changes nothing.

        Args:
            groups: The channel groups.
            shares: Pairs of a criterion and the fraction of all channels that goes by it.
            granularity: How many channels a group keeps at least, and a multiple of how many.
            left: How many channels each group has lost already: shares are those of all channels that it had, and
                these went first. None for none.

        Returns:
            For each group one bool per channel, True for those that stay.

        Example:

        >>> import keras
        >>> from tfprune.criteria import l2_norm
        >>> from tfprune.graph import channel_groups
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(16), keras.layers.Dense(3)])
        >>> groups = channel_groups(model).free
        >>> [int(keep.sum()) for keep in Ranking().choose(groups, [(l2_norm, 0.4)], Channel(round_to=4))]
        [12]
        """
        granularity, pools = granularity or Channel(), self.pools(groups)
        keep = [np.ones(group.size, bool) for group in groups]
        lost = [0] * len(groups) if left is None else list(left)
        owing = np.array([sum(lost[index] for index in pool) for pool in pools], int)
        earlier: list[list[tuple[AnyChannelCriterion, int]]] = [[] for _ in groups]
        for number, (criterion, sparsity) in enumerate(shares, 1):
            scores = [self.scores(group, criterion, kept) for group, kept in zip(groups, keep, strict=True)]
            wanted = [Channel().count(sum(groups[i].size + lost[i] for i in pool), sparsity) for pool in pools]
            paid = np.minimum(wanted, owing)
            owing = owing - paid
            counts = self.counts(scores, pools, wanted - paid, keep)
            if self.within is not None:
                criterion = self.within
                scores = [self.scores(group, criterion, kept) for group, kept in zip(groups, keep, strict=True)]
            for index, (group, count) in enumerate(zip(groups, counts, strict=True)):
                if number == len(shares):
                    gone = sum(each for _, each in earlier[index])
                    size, all_gone = lost[index] + group.size, lost[index] + gone + count
                    allowed = max(self.allow(size, all_gone, granularity) - lost[index], 0)
                    if allowed < gone:  # rounding takes back more than this share would drop
                        keep[index] = self._at_most(allowed, group, earlier[index])
                    count = max(allowed - gone, 0)
                keep[index] = drop_lowest(scores[index], count, keep[index])
                earlier[index].append((criterion, count))
        return keep

    def counts(
        self,
        scores: Sequence[np.ndarray],
        pools: Sequence[Sequence[int]],
        wanted: Sequence[int] | np.ndarray,
        among: Sequence[np.ndarray] | None = None,
    ) -> list[int]:
        """Return how many channels of each group go when those of each pool are ranked together.

        Args:
            scores: For each group one score per channel; infinite ones stay.
            pools: Which groups are ranked together; see `pools`.
            wanted: How many channels of each pool go.
            among: For each group which channels may go; all if left out.

        Returns:
            One count per group; every pool keeps a channel.
        """
        counts = [0] * len(scores)
        for pool, count in zip(pools, wanted, strict=True):
            for index, ranks in zip(pool, self.ranks(scores, pool, among), strict=True):
                counts[index] = int(np.searchsorted(ranks, count))
        return counts

    def ranks(
        self, scores: Sequence[np.ndarray], pool: Sequence[int], among: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Return in which places the channels of each group of a pool go, all of the pool ranked together.

        The best channel of a group never goes, and the next lowest elsewhere goes in its place.

        Args:
            scores: For each group one score per channel; infinite ones stay.
            pool: The groups, by their places in `scores`.
            among: For each group which channels may go; all if left out.

        Returns:
            For each group of the pool the places of its channels that may go, ascending; 0 goes first.

        Raises:
            ValueError: If a score is NaN.
        """
        chosen = [np.ones(len(scores[index]), bool) if among is None else among[index] for index in pool]
        joined = np.concatenate(
            [_without_best(self.normalized(scores[index]), own) for index, own in zip(pool, chosen, strict=True)]
        )
        going = order_of_going(joined)
        group_of = np.repeat(np.arange(len(pool)), [len(scores[index]) for index in pool])[going]
        return [np.flatnonzero(group_of == place) for place in range(len(pool))]

    def _at_most(
        self, allowed: int, group: ChannelGroup, drops: Sequence[tuple[AnyChannelCriterion, int]]
    ) -> np.ndarray:
        """Which channels of one group stay when only so many may go, by as many criteria as it takes."""
        keep = np.ones(group.size, bool)
        for criterion, count in drops:
            keep = drop_lowest(self.scores(group, criterion, keep), min(count, allowed), keep)
            allowed -= min(count, allowed)
        return keep

    def _reduced(self, found: ChannelScores, view: ChannelView, criterion: ChannelCriterion) -> np.ndarray:
        if not isinstance(found, Sequence):
            found = np.asarray(found, np.float64)
            if found.shape != (view.size,):
                raise ValueError(
                    f"{type(criterion).__name__} must return one score for each of the {view.size} channels of "
                    f"{view.name!r}. It returned the shape {found.shape}."
                )
            if self.reduce != "mean":
                raise ValueError(
                    f"{type(criterion).__name__} gives one score per channel, so there is nothing to reduce by "
                    f"{self.reduce!r}. Leave `reduce` out."
                )
            return found
        join, start = _REDUCTIONS[self.reduce]
        total, times = np.full(view.size, start), np.zeros(view.size)
        for member, numbers in found:
            if np.shape(numbers) != member.channels.shape:
                raise ValueError(
                    f"{type(criterion).__name__} must return one score for each of the {len(member.channels)} "
                    f"positions of {member.name!r}, which is a {member.role} in {view.name!r}. It returned the shape "
                    f"{np.shape(numbers)}."
                )
            join.at(total, member.channels, numbers)
            np.add.at(times, member.channels, 1.0)
        total = np.where(times > 0, total, np.inf)
        return np.divide(total, times, out=total, where=times > 0) if self.reduce == "mean" else total


def _without_best(scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The scores of a group, infinite where a channel may not go; where all others may, the best of them may not."""
    found = np.where(among, scores, np.inf)
    left = np.flatnonzero(among)
    if left.size and found[left].max() < np.inf:
        found[left[np.argmax(found[left])]] = np.inf
    return found


_FLOOR = 0.25
"""Weighed by cost, some groups would keep one or two channels; a quarter costs nothing else."""

AnyRanking: TypeAlias = Ranking | Scope
"""What is accepted as a ranking: the name of its scope stands for `Ranking(scope)`."""


def as_ranking(ranking: AnyRanking) -> Ranking:
    """Return a ranking, made of the name of its scope if need be.

    Args:
        ranking: A `Ranking`, or `"local"`, `"global"` or `"structure"`.

    Raises:
        ValueError: If it is something else.

    Example:

    >>> as_ranking("global")
    Ranking(scope='global', reduce='mean', normalize='mean', cost=None, floor=None, within=None)
    """
    if isinstance(ranking, Ranking):
        return ranking
    if ranking not in get_args(Scope):
        raise ValueError(f"ranking must be a Ranking, 'local', 'global' or 'structure'. Received: {ranking!r}.")
    return Ranking(ranking)


_REDUCTIONS: dict[str, tuple[np.ufunc, float]] = {
    "mean": (np.add, 0.0),
    "sum": (np.add, 0.0),
    "max": (np.maximum, -np.inf),
    "product": (np.multiply, 1.0),
}
