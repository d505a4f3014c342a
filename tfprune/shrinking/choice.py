"""How many channels of each group stay, and which: from scores to an amount, a budget or widths."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tfprune.common.checks import check_fraction
from tfprune.graph import Analysis, ChannelGroup
from tfprune.graph.counting import SizeCounter
from tfprune.shrinking.budget import Budget, OutOfReachError, fill, load
from tfprune.shrinking.order import ChannelOrder
from tfprune.shrinking.ratios import Ratios, resolve_ratios
from tfprune.shrinking.widths import Widths


@dataclass(frozen=True)
class Choice:
    """How many channels of each free group stay, and in which order the others go."""

    analysis: Analysis
    order: ChannelOrder
    widths: np.ndarray

    def removed(self) -> np.ndarray:
        """The labels that go; a part of a split keeps one channel."""
        pairs = zip(self.analysis.groups.free, self.order.removed(self.widths), strict=True)
        return self.analysis.spare(np.concatenate([group.labels[gone] for group, gone in pairs]))

    def keep(self) -> dict[ChannelGroup, np.ndarray]:
        """The indices that stay, for `shrink`."""
        stays = self.analysis.alive(self.removed())
        return {group: np.flatnonzero(stays[group.labels]) for group in self.analysis.groups.free}

    def counts(self) -> np.ndarray:
        """How many channels take the place of each: none or one."""
        counts = np.ones(self.analysis.trace.num_channels)
        counts[self.removed()] = 0
        return counts


@dataclass(frozen=True)
class Amount:
    """How much goes: a ratio, ratios or widths by group, or what a budget leaves.

    Attributes:
        ratio: See `tfprune.prune_channels`.
        budget: The budget.
    """

    ratio: float | Ratios | Widths | None
    budget: Budget | None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.budget is None):
            raise ValueError(f"Give either ratio or budget. Received: ratio={self.ratio!r}, budget={self.budget!r}.")
        if self.budget is not None:
            if not isinstance(self.budget, Budget):
                raise TypeError(
                    f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {self.budget!r}."
                )
            self.budget.check_counted()
        elif not self.by_group:
            check_fraction("ratio", self.ratio)  # type: ignore[arg-type]  # neither None nor by group

    @property
    def by_group(self) -> bool:
        """Whether it says itself how many channels of each group go."""
        return isinstance(self.ratio, Mapping) or callable(self.ratio)

    def choose(self, analysis: Analysis, order: ChannelOrder, count: SizeCounter, share: float = 1.0) -> Choice:
        """Choose the channels that stay.

        Args:
            analysis: The analysis of the model.
            order: In which order its channels go.
            count: Counts it.
            share: How much of the way is gone: what stays is raised to this power.

        Raises:
            TypeError: If a key of `ratio` is neither a group nor a layer.
            ValueError: If a ratio is out of range, a key is foreign or frozen, or the budget is out of reach.
        """
        return Choice(analysis, order, self._widths(analysis, order, count, share))

    def _widths(self, analysis: Analysis, order: ChannelOrder, count: SizeCounter, share: float) -> np.ndarray:
        if self.budget is not None:
            return _within(analysis, order, self.budget, count, share)
        if isinstance(self.ratio, Widths):
            kept = (_no_wider(analysis, self.ratio) / order.sizes) ** share
            return np.ceil((order.sizes * kept).round(9)).astype(int)
        if isinstance(self.ratio, Mapping) or callable(self.ratio):
            return order.at_ratio([_part(ratio, share) for ratio in resolve_ratios(analysis, self.ratio)])
        assert self.ratio is not None
        return order.at_ratio(_part(self.ratio, share))


def _part(ratio: float, share: float) -> float:
    return ratio if share == 1 else 1 - (1 - ratio) ** share


def _no_wider(analysis: Analysis, widths: Widths) -> np.ndarray:
    wanted = widths.resolve(analysis.groups)
    for group, width in zip(analysis.groups.free, wanted.tolist(), strict=True):
        if width > group.size:
            raise ValueError(
                f"Pruning cannot make {group.name!r} wider: it has {group.size} channels, and Widths asks for {width}. "
                "tfprune.widen can."
            )
    return wanted


def _within(analysis: Analysis, order: ChannelOrder, budget: Budget, count: SizeCounter, share: float) -> np.ndarray:
    """The widths that fill a budget."""

    def sizes(widths: np.ndarray) -> dict[str, int]:
        return count(Choice(analysis, order, widths).counts(), budget.limits())

    dense, steps = sizes(order.sizes), order.steps()
    limits = {
        name: limit if share == 1 else dense[name] * min(limit / dense[name], 1.0) ** share
        for name, limit in budget.absolute(dense).items()
    }
    widths = fill(steps, lambda widths: load(sizes(widths), limits))
    if widths is None:
        least = sizes(steps.narrowest)
        smallest = {name: f"{least[name]:,} of {dense[name]:,}" for name in limits}
        raise OutOfReachError(
            f"{budget} cannot be met. The smallest that pruning can reach is {smallest}. Raise the budget, exclude "
            "fewer layers, or lower min_channels or the ranking's floor; print(tfprune.channel_groups(model)) shows "
            "what is frozen."
        )
    return widths
