"""Channel pruning without training: measure, rank, choose, remove."""

import numbers
import warnings
from typing import Any

import keras

from tfprune.common.renamed import renamed
from tfprune.criteria import AnyChannelCriterion
from tfprune.granularity import Channel, check_granularity
from tfprune.graph import Analysis, analyse
from tfprune.graph.exclude import Exclude
from tfprune.parts.ranking import AnyRanking
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.choice import Amount
from tfprune.shrinking.judging import Judge
from tfprune.shrinking.ratios import Ratios
from tfprune.shrinking.rounds import Pruning, Rounds
from tfprune.shrinking.widths import Widths


@renamed("target", "budget")
def prune_channels(
    model: keras.Model,
    ratio: float | Ratios | Widths | None = None,
    *,
    budget: Budget | None = None,
    criterion: AnyChannelCriterion | None = None,
    data: Any = None,
    ranking: AnyRanking | None = None,
    rounds: int | Rounds = 1,
    granularity: Channel | None = None,
    exclude: Exclude = None,
) -> keras.Model:
    """Remove the least important channels of a model, and return a smaller, plain Keras model.

    With some hundred samples of data, labels or not, what the loss says decides: again and again the channel goes whose
    gate carries the least Fisher information for the operations that it costs. Then `tfprune.reconstruct` repairs what
    is left on the same data, whatever the criterion. Without data the norms of kernels decide, at one ratio for all
    groups, and far more accuracy is lost. Fine-tuning recovers most of it. The model itself is not changed.

    Reference: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021,
    https://arxiv.org/abs/2108.00708; without data Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017,
    https://arxiv.org/abs/1608.08710

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        ratio: The fraction of channels to remove, in [0, 1). For different ones, a dict by group of
            `tfprune.channel_groups(model)` or by layer, where those not named keep all channels, or a function from a
            group to its ratio; or `tfprune.Widths`, which say how many stay. Give either this or `budget`.
        budget: The budget to fill: channels go in the order in which they would at a rising ratio, no more of them
            than must, and then those that still fit come back.
        criterion: What makes a channel important; see `tfprune.criteria`. `GroupFisher()` if left out and there is
            data, else the L2 norm of the kernels.
        data: Samples like those of training, of which up to 1,024 are used: inputs, with labels if the criterion wants
            them, in any form that `fit` takes. Or `Statistics` that were gathered before, and then nothing is
            repaired.
        ranking: `"local"` removes the ratio from every group; `"global"` ranks the channels of all groups together,
            each score relative to its group's mean; `"structure"` does so among groups made of the same layers. A
            `tfprune.Ranking` also says how scores are joined, made comparable and weighed by cost, and by what other
            criterion channels within a group are chosen. If left out, `"local"`; with data and without a criterion
            `Ranking("global", normalize="none", cost="macs")`, by `"parameters"` for a budget that
            does not limit MACs.
        rounds: In how many rounds the channels go, with new scores between them; `tfprune.Rounds` can also train there.
        granularity: `Channel(min_channels=4, round_to=8)` leaves every group at least 4 channels and a multiple of 8.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Returns:
        A new model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If an argument is out of range, nothing can be pruned, `ratio` names what is frozen or foreign or
            says two things about one group, the criterion needs data or labels that are not there, or the budget is out
            of reach; the message then says how far it can go.

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
    >>> prune_channels(model, 0.5, data=keras.random.normal((32, 8, 8, 3))).get_layer("conv").filters
    8
    """
    amount = Amount(ratio, budget)
    judge = Judge.of(model, amount, criterion, ranking, data)
    pruning = _pruning(amount, judge, rounds, granularity, repairs=True)
    stage, choice = pruning.choose(_analysed(model, exclude), model)
    small, _ = stage.shrunken(choice)
    judge.repair(small, model)
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
    criterion: AnyChannelCriterion | None = None,
    data: Any = None,
    ranking: AnyRanking | None = None,
    rounds: int | Rounds = 1,
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
        data: Samples, or statistics.
        ranking: What channels are compared with.
        rounds: In how many rounds they go.
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
    amount = Amount(ratio, budget)
    judge = Judge.of(model, amount, criterion, ranking, data)
    pruning = _pruning(amount, judge, rounds, granularity, repairs=rounds != 1)
    stage, choice = pruning.choose(_analysed(model, exclude), model)
    return Widths(dict(zip(stage.groups, choice.widths.tolist(), strict=True)))


def _pruning(amount: Amount, judge: Judge, rounds: int | Rounds, granularity: Channel | None, repairs: bool) -> Pruning:
    counts = check_granularity(granularity or Channel(), Channel, "prune_channels")
    if isinstance(amount.ratio, Widths) and granularity is not None:
        raise ValueError(f"Widths say exactly how many channels stay. Leave out granularity={granularity}.")
    pruning = Pruning(amount, judge, counts, rounds if isinstance(rounds, Rounds) else Rounds(rounds))
    judge.check_data(repairs)
    return pruning


def _analysed(model: keras.Model, exclude: Exclude) -> Analysis:
    analysis = analyse(model, exclude)
    if not analysis.groups.free:
        raise ValueError(f"No channel of {model.name!r} can be removed.\n{analysis.groups}")
    return analysis
