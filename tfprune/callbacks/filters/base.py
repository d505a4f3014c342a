"""What all callbacks that prune whole filters share: when they prune, what they zero, and what they log."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from tfprune.callbacks.filters.stages import Plan, Stage, as_stages
from tfprune.callbacks.narrowing import Narrowable
from tfprune.common.checks import check_choice
from tfprune.criteria import AnyChannelCriterion, as_channel_criterion
from tfprune.granularity import Channel, check_granularity
from tfprune.graph import ChannelGroup, ChannelGroups, Member, channel_groups
from tfprune.graph.exclude import Chosen, Exclude, resolve_exclude
from tfprune.graph.trace import MODEL_OUTPUT
from tfprune.parts.channels import channel_masks, zero_channels
from tfprune.parts.ranking import AnyRanking, Ranking, Share, as_ranking
from tfprune.schedules import ScheduleLike
from tfprune.training.foreign_updates import ForeignUpdates
from tfprune.training.masks import HeldMasks, Masks, apply_masks, variables_by_path

Scope = Literal["group", "layer"]
Mode = Literal["soft", "hard"]

FADING = 0.1
"""How much of what carries a filter (bias, gamma, beta) is left at each soft pruning."""


class FilterPruning(keras.callbacks.Callback, Narrowable):
    """Zero whole filters: held from before training, or softly after every few epochs.

    In soft mode the kernels of filters are zeroed at the end of an epoch, before validation, and may grow back in the
    next. What carries them (bias, gamma, beta) shrinks to a tenth each time: BatchNormalization would bring a filter
    back to full strength however small it is, so that the next pruning would take away what the network relies on; a
    zero gamma and bias would pass no gradient, and nothing could grow back. The last pruning zeroes all of it (and
    depthwise kernels), so that `tfprune.shrink` can remove the filters exactly. In hard mode everything is zeroed at
    the start and held at zero in every training step.

    A `fit` that is interrupted (KeyboardInterrupt) never ends: in hard mode the model then goes on holding its masks
    until a `fit` with a callback of tfprune ends, or the model is compiled with a new optimizer.

    The epoch logs receive `sparsity`, the measured fraction of zero weights in the pruned kernels, and
    `pruned_filters`, the number of filters that are zero.

    Which filters, how many and when are arguments, so that many published methods need no class of their own: filters
    chosen by another criterion, in growing numbers, across layers, or in multiples of 8. A schedule counts epochs; one
    without an `end` ends with the training in soft mode, and after three quarters of it in hard mode, where the last
    quarter lets the network recover.

    Args:
        sparsity: The fraction of filters to prune, in [0, 1); or a schedule, such as
            `Polynomial(0.5, unit="epochs", frequency=1)`, or a function from the number of epochs that are done to the
            fraction. Or a list of `Stage`, of which each prunes among what the last one left.
        criterion: What makes a filter important, where `sparsity` is no list; see `tfprune.criteria`. The L2 norm if
            left out.
        ranking: `"local"` prunes the same share of every layer or group; `"global"` and `"structure"` rank the filters
            of several together. A `tfprune.Ranking` also says how scores are joined and made comparable.
        granularity: `Channel(min_channels=4, round_to=8)` leaves at least 4 filters and a multiple of 8.
        mode: `"soft"` or `"hard"`.
        scope: `"group"` to prune what several layers share together; `"layer"` for each layer on its own.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        TypeError: If the criterion or the granularity is of another kind.
        ValueError: If an argument is out of range; when `fit` starts, if there is no layer to prune or the schedule
            does not fit into the training.

    Example:

    >>> from tfprune.criteria import l1_norm
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> pruning = FilterPruning(0.25, l1_norm, mode="hard")
    >>> model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[pruning]).history["pruned_filters"]
    [2]
    """

    def __init__(
        self,
        sparsity: ScheduleLike | Sequence[Stage],
        criterion: AnyChannelCriterion | None = None,
        *,
        ranking: AnyRanking = "local",
        granularity: Channel | None = None,
        mode: Mode = "soft",
        scope: Scope = "group",
        exclude: Exclude = None,
    ) -> None:
        super().__init__()
        check_choice("scope", scope, ("group", "layer"))
        check_choice("mode", mode, ("soft", "hard"))
        self.stages = as_stages(sparsity, criterion)
        self.ranking = _of_weights(as_ranking(ranking), type(self).__name__)
        self.granularity = check_granularity(granularity or Channel(), Channel, type(self).__name__)
        self.scope = scope
        self.mode = mode
        self.exclude = exclude
        self._groups: tuple[ChannelGroup, ...] = ()
        self._dense_sizes: list[int] = []
        self._dense_kernels: list[tuple[int, int]] = []
        self._held: HeldMasks | None = None
        self._foreign: ForeignUpdates | None = None
        self._plan = Plan((), None)
        self._shares: list[Share] = []
        self._epoch: int | None = None
        self._pruned_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the groups, and in hard mode prune before training; errors come here, before time is spent."""
        groups = channel_groups(self.model, self.exclude)
        if self.scope == "group":
            self._groups = groups.free
        else:
            self._groups = _single_layers(groups, resolve_exclude(self.model, self.exclude))
        self._dense_sizes = self.take_over(self._dense_sizes, [group.size for group in self._groups])
        self._dense_kernels = self.take_over(self._dense_kernels, [_sizes(each) for each in self._producers()])
        self._plan = Plan.of(self.stages, (self.params or {}).get("epochs"), end=1.0 if self.mode == "soft" else 0.75)
        self._check_groups(groups)
        self._held = self._foreign = self._epoch = self._pruned_epoch = None
        self._start(0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember which epoch runs; where training goes on at a later one, prune as far as is due there."""
        if self._epoch is None and self._pruned_epoch is None and self._plan.shares(epoch) != self._shares:
            self._start(epoch)
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Watch the first steps."""
        if self._foreign is not None:
            self._foreign.start_steps()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raise a ValueError if the first steps have trained filters that would not be held."""
        error = None if self._foreign is None else self._foreign.end_steps()
        if error is not None and self._held is not None:
            self._held.release()
            self._held = self._foreign = None
            raise error

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prune before the validation of an epoch, so that it measures the pruned model."""
        if self._epoch is not None:
            self._prune(self._epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prune if validation did not, and log the sparsity."""
        self._prune(epoch)
        self._epoch = None
        if logs is not None:
            logs["sparsity"], logs["pruned_filters"] = self._measure()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave every pruned filter exactly zero, however training ended."""
        if self._held is not None:
            self.pause()
        else:
            apply_masks(self.model, self._masks())

    def why_not_narrower(self) -> str:
        """Return why training cannot go on in smaller models."""
        if self.mode == "soft":
            return 'filters that it zeroes grow back; use mode="hard"'
        return "" if self.ranking.scope == "local" else 'it ranks filters of several layers; use ranking="local"'

    def pause(self) -> None:
        """Let the optimizer go; what is zero stays so."""
        if self._held is not None:
            self._held.release()
            self._held = self._foreign = None

    def _check_groups(self, groups: ChannelGroups) -> None:
        if not self._groups:
            raise ValueError(f"{type(self).__name__} finds no prunable layer in {self.model.name!r}.\n{groups}")
        rates = [rate for _, rate in self._plan.shares(self._plan.epochs or 0, last=True)]
        named = f"At a rate of {', '.join(f'{rate:g}' for rate in rates)} no filter would be pruned:"
        sizes = self._dense_sizes
        pools = [sum(sizes[index] for index in pool) for pool in self.ranking.pools(self._groups)]
        if not any(Channel().count(pool, rate) for pool in pools for rate in rates):
            what = "layer" if self.ranking.scope == "local" else "set of layers that are ranked together"
            raise ValueError(
                f"{named} the widest {what} has {max(pools)} filters, and counts are rounded down. Use a rate of at "
                f"least {1 / max(pools):.3g}."
            )
        wanted = [sum(Channel().count(size, rate) for rate in rates) for size in sizes]
        if self.ranking.scope == "local" and not any(map(self.granularity.allow, sizes, wanted)):
            raise ValueError(
                f"{named} {self.granularity} leaves every layer as it is, of which the widest has {max(sizes)} "
                "filters. Raise the rate, or lower round_to or min_channels."
            )

    def _start(self, time: int) -> None:
        """Prune as far as is due when so many epochs are done, before the next one; softly only after it."""
        self._shares = self._plan.shares(time)
        masks = self._masks()  # in soft mode too: what a criterion raises comes before time is spent
        if self.mode == "soft":
            return
        if self._held is None:
            self._held = HeldMasks(self.model, masks, self.params)
            variables = variables_by_path(self.model)
            self._foreign = ForeignUpdates(type(self).__name__, self._held, [variables[path] for path in masks])
        else:
            self._hold(masks)

    def _prune(self, epoch: int) -> None:
        if self._pruned_epoch == epoch or not self._plan.due(epoch + 1):
            return
        last = epoch + 1 == self._plan.epochs
        shares, self._shares = self._shares, self._plan.shares(epoch + 1, last)
        self._pruned_epoch = epoch
        if self.mode == "hard":
            if shares != self._shares:
                self._hold(self._masks())
        elif last:
            apply_masks(self.model, self._masks())
        else:
            choice = self._choose()
            apply_masks(self.model, channel_masks(choice, ("producer",)))
            apply_masks(self.model, channel_masks(choice, ("affine",)), FADING)

    def _hold(self, masks: Masks) -> None:
        assert self._held is not None
        self._held.update({path: mask & self._held.masks[path] for path, mask in masks.items()})

    def _choose(self) -> list[tuple[ChannelGroup, np.ndarray]]:
        """The groups, each with the channels that stay."""
        kept = self.ranking.choose(self._groups, self._shares, self.granularity, self._left())
        return list(zip(self._groups, kept, strict=True))

    def _masks(self) -> Masks:
        """What makes and what carries the channels that go, as masks."""
        return channel_masks(self._choose(), ("producer", "affine"))

    def _left(self) -> list[int]:
        """How many filters of each group have left the model since training began."""
        return [dense - group.size for dense, group in zip(self._dense_sizes, self._groups, strict=True)]

    def _producers(self) -> list[Member]:
        return [member for group in self._groups for member in group.producers]

    def _measure(self) -> tuple[float, int]:
        zeros = 0.0
        for member, (dense, dense_filters) in zip(self._producers(), self._dense_kernels, strict=True):
            size, filters = _sizes(member)
            there = dense * filters / dense_filters  # filters that have left the model count as zero, as they were
            zeros += dense - there + there * int((member.variable.numpy() == 0).sum()) / size
        pruned = sum(int(zero_channels(group.producers, group.size).sum()) for group in self._groups)
        return zeros / sum(dense for dense, _ in self._dense_kernels), sum(self._left()) + pruned


def _sizes(member: Member) -> tuple[int, int]:
    """How many weights a kernel has, and how many filters."""
    return int(np.prod(member.variable.shape)), int(member.variable.shape[member.axis])


def _of_weights(ranking: Ranking, who: str) -> Ranking:
    """Return the ranking, or raise if it asks for what there is not during `fit`."""
    if ranking.cost is not None:
        raise ValueError(
            f"cost={ranking.cost!r} is counted for the model that comes out in the end, and {who} makes none. Leave it "
            "out, or prune at once: tfprune.prune_channels(model, ..., data=..., rounds=...)."
        )
    if ranking.within is not None:
        as_channel_criterion(ranking.within)
    return ranking


def _single_layers(groups: ChannelGroups, excluded: Chosen) -> tuple[ChannelGroup, ...]:
    """Every kernel that makes channels as a group of its own, tied to nothing, except the model's outputs."""
    found = []
    for group in groups:
        left_alone = {id(member.layer) for member in group.producers if excluded.holds(member.variable)}
        if MODEL_OUTPUT not in group.frozen:
            found += [_single_layer(group, each) for each in group.producers if id(each.layer) not in left_alone]
    return tuple(found)


def _single_layer(group: ChannelGroup, producer: Member) -> ChannelGroup:
    own = [member for member in group.with_role("producer", "affine") if member.layer is producer.layer]
    members = tuple(dataclasses.replace(member, channels=member.positions) for member in own)
    return ChannelGroup(producer.layer.name, producer.variable.shape[producer.axis], members)
