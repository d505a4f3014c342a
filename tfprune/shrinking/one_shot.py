"""One-shot channel pruning: rank, choose, remove, without training."""

import numbers
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.common.checks import check_fraction
from tfprune.common.renamed import renamed
from tfprune.criteria import AnyChannelCriterion, l2_norm
from tfprune.granularity import Channel, check_granularity
from tfprune.graph import Analysis, ChannelGroup, analyse
from tfprune.graph.counting import SizeCounter
from tfprune.graph.exclude import Exclude
from tfprune.graph.groups import named
from tfprune.parts.ranking import AnyRanking, Ranking, as_ranking
from tfprune.shrinking.budget import Budget, fill, load
from tfprune.shrinking.order import ChannelOrder
from tfprune.shrinking.ratios import Ratios, resolve_ratios
from tfprune.shrinking.removal import shrink
from tfprune.shrinking.widths import Widths


@renamed("target", "budget")
def prune_channels(
    model: keras.Model,
    ratio: float | Ratios | Widths | None = None,
    *,
    budget: Budget | None = None,
    criterion: AnyChannelCriterion = l2_norm,
    ranking: AnyRanking = "local",
    granularity: Channel | None = None,
    exclude: Exclude = None,
) -> keras.Model:
    """Remove the least important channels of a model, and return a smaller, plain Keras model.

    No training and no data: expect a loss of accuracy. `tfprune.recalibrate` recovers a part of it on inputs like those
    of training, and fine-tuning most. The model itself is not changed.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, https://arxiv.org/abs/1608.08710

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        ratio: The fraction of channels to remove, in [0, 1). For different ones, a dict by group of
            `tfprune.channel_groups(model)` or by layer, where those not named keep all channels, or a function from a
            group to its ratio; or `tfprune.Widths`, which say how many stay. Give either this or `budget`.
        budget: The budget to fill: channels go in the order in which they would at a rising ratio, no more of them
            than must, and then those that still fit come back.
        criterion: What makes a channel important; see `tfprune.criteria`.
        ranking: `"local"` removes the ratio from every group; `"global"` ranks the channels of all groups together,
            each score relative to its group's mean; `"structure"` does so among groups made of the same layers. A
            `tfprune.Ranking` also says how scores are joined and made comparable.
        granularity: `Channel(min_channels=4, round_to=8)` leaves every group at least 4 channels and a multiple of 8.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Returns:
        A new model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If an argument is out of range, nothing can be pruned, `ratio` names what is frozen or foreign or
            says two things about one group, or the budget is out of reach; the message then says how far it can go.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10)])
    >>> prune_channels(model, 0.25).get_layer("conv").filters
    12
    >>> prune_channels(model, {model.get_layer("conv"): 0.5}).get_layer("conv").filters
    8
    >>> prune_channels(model, budget=Budget(macs=0.7)).get_layer("conv").filters
    11
    """
    choice = _choose(model, ratio, budget, criterion, ranking, granularity, exclude)
    small = shrink(model, choice.keep())
    is_number = isinstance(ratio, numbers.Real)
    if is_number and ratio and granularity is None and small.count_params() == model.count_params():
        widest = int(choice.order.sizes.max())
        warnings.warn(
            f"At a ratio of {ratio:g} no channel goes: the widest group has {widest} channels, and counts are "
            f"rounded down. Use a ratio of at least {1 / widest:.3g}.",
            stacklevel=3,  # behind the decorator
        )
    return small


@renamed("target", "budget")
def choose_widths(
    model: keras.Model,
    ratio: float | Ratios | Widths | None = None,
    *,
    budget: Budget | None = None,
    criterion: AnyChannelCriterion = l2_norm,
    ranking: AnyRanking = "local",
    granularity: Channel | None = None,
    exclude: Exclude = None,
) -> Widths:
    """Return how many channels of each group `prune_channels` would keep, without making the model.

    `prune_channels(model, widths)` makes it, by the same criterion. A part of a split that would be left empty keeps
    one channel more.

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        ratio: See `prune_channels`, as all that follows.
        budget: The budget to fill.
        criterion: What makes a channel important.
        ranking: What channels are compared with.
        granularity: How many channels may stay.
        exclude: Layers to leave alone.

    Returns:
        The width of each free group.

    Raises:
        TypeError: As `prune_channels`.
        ValueError: As `prune_channels`.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)])
    >>> choose_widths(model, budget=Budget(parameters=0.6))
    Widths({'hidden': 4})
    """
    choice = _choose(model, ratio, budget, criterion, ranking, granularity, exclude)
    free = [name for name, group in named(choice.analysis.groups).items() if not group.frozen]
    return Widths(dict(zip(free, choice.widths.tolist(), strict=True)))


@dataclass(frozen=True)
class _Choice:
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


def _choose(
    model: keras.Model,
    ratio: float | Ratios | Widths | None,
    budget: Budget | None,
    criterion: AnyChannelCriterion,
    ranking: AnyRanking,
    granularity: Channel | None,
    exclude: Exclude,
) -> _Choice:
    ranked = as_ranking(ranking)
    counts = check_granularity(granularity or Channel(), Channel, "prune_channels")
    _check(ratio, budget, ranked, granularity)
    analysis = analyse(model, exclude)
    free = analysis.groups.free
    if not free:
        raise ValueError(f"No channel of {model.name!r} can be removed.\n{analysis.groups}")
    order = ChannelOrder([ranked.scores(group, criterion) for group in free], ranked.pools(free), ranked, counts)
    if budget is not None:
        return _Choice(analysis, order, _within(model, analysis, order, budget))
    if isinstance(ratio, Widths):
        return _Choice(analysis, order, _no_wider(analysis, ratio))
    if isinstance(ratio, Mapping) or callable(ratio):
        return _Choice(analysis, order, order.at_ratio(resolve_ratios(analysis, ratio)))
    assert ratio is not None
    return _Choice(analysis, order, order.at_ratio(ratio))


def _check(
    ratio: float | Ratios | Widths | None, budget: Budget | None, ranking: Ranking, granularity: Channel | None
) -> None:
    if (ratio is None) == (budget is None):
        raise ValueError(f"Give either ratio or budget. Received: ratio={ratio!r}, budget={budget!r}.")
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {budget!r}.")
    if budget is not None:
        budget.check_counted()
    elif isinstance(ratio, Mapping) or callable(ratio):
        if ranking.scope != "local":
            raise ValueError(
                f"ranking={ranking.scope!r} decides how many channels of each group go, and so does ratio={ratio!r}. "
                "Give a ratio for all groups, or leave ranking out."
            )
        if isinstance(ratio, Widths) and granularity is not None:
            raise ValueError(f"Widths say exactly how many channels stay. Leave out granularity={granularity}.")
    else:
        assert ratio is not None
        check_fraction("ratio", ratio)


def _no_wider(analysis: Analysis, widths: Widths) -> np.ndarray:
    wanted = widths.resolve(analysis.groups)
    for group, width in zip(analysis.groups.free, wanted.tolist(), strict=True):
        if width > group.size:
            raise ValueError(
                f"Pruning cannot make {group.name!r} wider: it has {group.size} channels, and Widths asks for {width}. "
                "tfprune.widen can."
            )
    return wanted


def _within(model: keras.Model, analysis: Analysis, order: ChannelOrder, budget: Budget) -> np.ndarray:
    """The widths that fill a budget."""
    count, steps = SizeCounter(model, analysis, folds=True), order.steps()

    def sizes(widths: np.ndarray) -> dict[str, int]:
        return count(_Choice(analysis, order, widths).counts(), budget.limits())

    dense = sizes(order.sizes)
    limits = budget.absolute(dense)
    widths = fill(steps, lambda widths: load(sizes(widths), limits))
    if widths is None:
        least = sizes(steps.narrowest)
        smallest = {name: f"{least[name]:,} of {dense[name]:,}" for name in limits}
        raise ValueError(
            f"{budget} cannot be met. The smallest that pruning can reach is {smallest}. Raise the budget, "
            "exclude fewer layers, or lower min_channels; print(tfprune.channel_groups(model)) shows what is frozen."
        )
    return widths
