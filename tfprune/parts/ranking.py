"""From a criterion to the channels that stay: which are compared, and how their scores become comparable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from tfprune.common.checks import check_choice
from tfprune.criteria import AnyChannelCriterion, ChannelCriterion, ChannelScores, ChannelView, as_channel_criterion
from tfprune.granularity import Channel
from tfprune.graph import ChannelGroup
from tfprune.parts.channels import drop_lowest, order_of_going, view_of, zero_channels

Scope = Literal["local", "global", "structure"]
Reduce = Literal["mean", "sum", "max", "product"]
Normalize = Literal["mean", "max", "lamp", "none"]
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

    Example:

    >>> Ranking("global", normalize="lamp").normalized(np.array([1.0, 2.0, 2.0]))
    array([0.11111111, 0.5       , 0.5       ])
    """

    scope: Scope = "local"
    reduce: Reduce = "mean"
    normalize: Normalize = "mean"

    def __post_init__(self) -> None:
        check_choice("scope", self.scope, get_args(Scope))
        check_choice("reduce", self.reduce, get_args(Reduce))
        check_choice("normalize", self.normalize, get_args(Normalize))

    def scores(
        self, group: ChannelGroup, criterion: AnyChannelCriterion, among: np.ndarray | None = None
    ) -> np.ndarray:
        """Score the channels of a group.

        Channels that are zero already score lowest (a criterion that measures distances would not know), and the best
        channel of a layer that holds only a part of the group scores highest, so that the layer cannot vanish.

        Args:
            group: The channel group.
            criterion: The criterion; it sees only the channels asked for.
            among: Which channels to score and compare, as a bool per channel of the group; all if left out.

        Returns:
            One float64 score per channel of the group; infinite for those not asked for.

        Raises:
            TypeError: If the criterion is none.
            ValueError: If it does not return one score per channel.
        """
        criterion = as_channel_criterion(criterion)
        among = np.ones(group.size, bool) if among is None else among
        view = view_of(group, among)
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
        return _NORMALIZATIONS[self.normalize](scores, np.isfinite(scores))

    def choose(
        self, groups: Sequence[ChannelGroup], shares: Sequence[Share], granularity: Channel | None = None
    ) -> list[np.ndarray]:
        """Choose the channels that stay: share by share, each among those that the last one left.

        Channels that are zero already go first, so pruning again at the same sparsity changes nothing.

        Args:
            groups: The channel groups.
            shares: Pairs of a criterion and the fraction of all channels that goes by it.
            granularity: How many channels a group keeps at least, and a multiple of how many.

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
        earlier: list[list[tuple[AnyChannelCriterion, int]]] = [[] for _ in groups]
        for number, (criterion, sparsity) in enumerate(shares, 1):
            scores = [self.scores(group, criterion, kept) for group, kept in zip(groups, keep, strict=True)]
            counts = self.counts(scores, pools, sparsity, keep)
            for index, (group, count) in enumerate(zip(groups, counts, strict=True)):
                if number == len(shares):
                    gone = sum(each for _, each in earlier[index])
                    allowed = granularity.allow(group.size, gone + count)
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
        sparsity: float,
        among: Sequence[np.ndarray] | None = None,
    ) -> list[int]:
        """Return how many channels of each group go when those of each pool are ranked together.

        Args:
            scores: For each group one score per channel; infinite ones stay.
            pools: Which groups are ranked together; see `pools`.
            sparsity: The fraction of all channels of a pool to prune, in [0, 1).
            among: For each group which channels may go; all if left out.

        Returns:
            One count per group; every pool keeps a channel.
        """
        counts = [0] * len(scores)
        for pool in pools:
            wanted = Channel().count(sum(len(scores[index]) for index in pool), sparsity)
            for index, ranks in zip(pool, self.ranks(scores, pool, among), strict=True):
                counts[index] = int(np.searchsorted(ranks, wanted))
        return counts

    def ranks(
        self, scores: Sequence[np.ndarray], pool: Sequence[int], among: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Return in which places the channels of each group of a pool go, all of the pool ranked together.

        Args:
            scores: For each group one score per channel; infinite ones stay.
            pool: The groups, by their places in `scores`.
            among: For each group which channels may go; all if left out.

        Returns:
            For each group of the pool the places of its channels that may go, ascending; 0 goes first.

        Raises:
            ValueError: If a score is NaN.
        """
        joined = np.concatenate([self.normalized(scores[index]) for index in pool])
        chosen = np.ones(len(joined), bool) if among is None else np.concatenate([among[index] for index in pool])
        going = order_of_going(np.where(chosen, joined, np.inf))
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
    Ranking(scope='global', reduce='mean', normalize='mean')
    """
    if isinstance(ranking, Ranking):
        return ranking
    if ranking not in get_args(Scope):
        raise ValueError(f"ranking must be a Ranking, 'local', 'global' or 'structure'. Received: {ranking!r}.")
    return Ranking(ranking)


def _relative_to_mean(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    mean = scores[finite].mean() if finite.any() else 1.0
    return scores / mean if mean > 0 else scores


def _relative_to_largest(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    largest = scores[finite].max() if finite.any() else 1.0
    return scores / largest if largest > 0 else scores


def _lamp(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    values = scores[finite]
    if (values < 0).any():
        raise ValueError(
            "normalize='lamp' squares the scores, so they must not be negative. Use another normalization, such as "
            "Ranking('global', normalize='none')."
        )
    values = values / values.max(initial=np.finfo(float).tiny)  # squares neither overflow nor vanish
    ascending = np.sort(values)
    squares_from = np.cumsum(ascending[::-1] ** 2)[::-1]
    at_least = squares_from[np.searchsorted(ascending, values, side="left")] if values.size else values
    relative = scores.copy()
    relative[finite] = np.divide(values**2, at_least, out=np.zeros_like(values), where=at_least > 0)
    return relative


_NORMALIZATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": _relative_to_mean,
    "max": _relative_to_largest,
    "lamp": _lamp,
    "none": lambda scores, finite: scores,
}
_REDUCTIONS: dict[str, tuple[np.ufunc, float]] = {
    "mean": (np.add, 0.0),
    "sum": (np.add, 0.0),
    "max": (np.maximum, -np.inf),
    "product": (np.multiply, 1.0),
}
