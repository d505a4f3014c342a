"""One-shot channel pruning: rank, choose, remove, without training."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.common.checks import check_fraction
from tfprune.criteria import AnyChannelCriterion, l2_norm
from tfprune.granularity import Channel, check_granularity
from tfprune.graph import analyse
from tfprune.graph.exclude import Exclude
from tfprune.graph.profiling import profile
from tfprune.parts.channels import drop_lowest
from tfprune.parts.ranking import AnyRanking, as_ranking
from tfprune.shrinking.removal import shrink

STEPS = 10
"""Halvings of the ratio when a budget is searched for: to within 1/1024."""


@dataclass(frozen=True)
class Budget:
    """How large the pruned model may be; a fraction below 1 is relative to the model as it is.

    Attributes:
        parameters: Number of weights.
        macs: Multiply-accumulate operations for one sample.
        file_bytes: Size of the float32 weights in bytes, which a float `.tflite` is hardly larger than; an int8 file
            is about a quarter of it. To `tfprune.compress`: the size of the int8 file that it writes.
        latency: Median latency of the int8 file on this machine, always as a fraction of that of the dense model's
            int8 file. Only `tfprune.compress` can measure it.

    Example:

    >>> Budget(macs=0.5)
    Budget(parameters=None, macs=0.5, file_bytes=None, latency=None)
    """

    parameters: float | None = None
    macs: float | None = None
    file_bytes: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        limits = self.limits()
        if not limits or not all(limit > 0 for limit in limits.values()):
            raise ValueError(
                "A budget needs at least one limit above 0, such as Budget(macs=0.5) for half the operations or "
                f"Budget(parameters=100_000). Received: {self}."
            )
        if self.latency is not None and self.latency >= 1:
            raise ValueError(
                "latency is a fraction of the dense int8 file's, below 1, as milliseconds differ from machine to "
                f"machine: Budget(latency=0.5) for twice as fast. Received: {self}."
            )

    def limits(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def check_counted(self) -> None:
        """Raise if a limit cannot be counted without an int8 file."""
        if self.latency is not None:
            raise ValueError(
                "Only tfprune.compress measures latency. Give a limit on macs, which it follows from: "
                f"Budget(macs=...). Received: {self}."
            )


def prune_channels(
    model: keras.Model,
    ratio: float | None = None,
    *,
    target: Budget | None = None,
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
        ratio: The fraction of channels to remove, in [0, 1). Give either this or `target`.
        target: The budget to meet; the smallest ratio that meets it is searched for.
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
        ValueError: If an argument is out of range, nothing can be pruned, or the target is out of reach; the message
            then says how far it can go.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10)])
    >>> prune_channels(model, 0.25).get_layer("conv").filters
    12
    >>> profile(prune_channels(model, target=Budget(macs=0.5))).macs <= 0.5 * profile(model).macs
    True
    """
    if (ratio is None) == (target is None):
        raise ValueError(f"Give either ratio or target. Received: ratio={ratio!r}, target={target!r}.")
    if ratio is not None:
        check_fraction("ratio", ratio)
    if target is not None and not isinstance(target, Budget):
        raise TypeError(f"target must be a Budget, such as tfprune.Budget(macs=0.5). Received: {target!r}.")
    ranking = as_ranking(ranking)
    counts = check_granularity(granularity or Channel(), Channel, "prune_channels")
    if target is not None:
        target.check_counted()
    analysis = analyse(model, exclude)
    groups = analysis.groups
    if not groups.free:
        raise ValueError(f"No channel of {model.name!r} can be removed.\n{groups}")
    scores = [ranking.scores(group, criterion) for group in groups.free]
    pools = ranking.pools(groups.free)

    def prune(fraction: float) -> keras.Model:
        kept = _choose(scores, ranking.counts(scores, pools, fraction), counts)
        chosen = [group.labels[~keep] for group, keep in zip(groups.free, kept, strict=True)]
        removed = analysis.spare(np.concatenate(chosen))  # a part of a split keeps one channel
        return shrink(model, {group: np.flatnonzero(~np.isin(group.labels, removed)) for group in groups.free})

    if target is None:
        assert ratio is not None
        small = prune(ratio)
        if ratio > 0 and granularity is None and small.count_params() == model.count_params():
            widest = max(group.size for group in groups.free)
            warnings.warn(
                f"At a ratio of {ratio:g} no channel goes: the widest group has {widest} channels, and counts are "
                f"rounded down. Use a ratio of at least {1 / widest:.3g}.",
                stacklevel=2,
            )
        return small
    return _meet(model, target, prune)


def _choose(scores: Sequence[np.ndarray], counts: Sequence[int], granularity: Channel) -> list[np.ndarray]:
    """One bool per channel of every group, without as many of the lowest scores as the granularity allows."""
    return [
        drop_lowest(score, granularity.allow(len(score), count), np.ones(len(score), bool))
        for score, count in zip(scores, counts, strict=True)
    ]


def _meet(model: keras.Model, target: Budget, prune: Callable[[float], keras.Model]) -> keras.Model:
    """The largest model among halvings of the ratio that is within the budget."""
    size = _sizes(model)
    limits = {name: limit * size[name] if limit < 1 else limit for name, limit in target.limits().items()}

    def fits(candidate: keras.Model) -> bool:
        found = _sizes(candidate)
        return all(found[name] <= limit for name, limit in limits.items())

    if fits(model):
        return prune(0.0)
    low, high = 0.0, 1.0 - 2.0**-STEPS / 2
    best = prune(high)
    if not fits(best):
        smallest = {name: f"{_sizes(best)[name]:,} of {size[name]:,}" for name in limits}
        raise ValueError(
            f"{target} cannot be met. The smallest that pruning can reach is {smallest}. Raise the budget, "
            "exclude fewer layers, or lower min_channels; print(tfprune.channel_groups(model)) shows what is frozen."
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        candidate = prune(middle)
        if fits(candidate):
            best, high = candidate, middle
        else:
            low = middle
    return best


def _sizes(model: keras.Model) -> dict[str, int]:
    found = profile(model)
    return {"parameters": found.parameters, "macs": found.macs, "file_bytes": 4 * found.parameters}
