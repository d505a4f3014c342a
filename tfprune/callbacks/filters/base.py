"""What all callbacks that prune whole filters share: when they prune, what they zero, and what they log."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from tfprune.common.checks import check_choice
from tfprune.granularity import Channel
from tfprune.graph import ChannelGroup, ChannelGroups, Member, channel_groups
from tfprune.graph.exclude import Chosen, Exclude, resolve_exclude
from tfprune.graph.trace import MODEL_OUTPUT
from tfprune.parts.channels import Stage, channel_masks, select_channels, zero_channels
from tfprune.training.masks import HeldMasks, Masks, apply_masks

Scope = Literal["group", "layer"]
Mode = Literal["soft", "hard"]


class FilterPruning(keras.callbacks.Callback):
    """Base of the callbacks that zero whole filters: once before training, then every few epochs.

    In soft mode the filters are zeroed at the end of an epoch, before validation, and may grow back in the next;
    only what makes them (kernel and bias) is zeroed, since a filter behind a zero gamma gets no gradient and
    could never recover. The last pruning also zeroes what carries them (gamma, beta, depthwise kernels), so
    that `tfprune.shrink` can remove them exactly. In hard mode everything is zeroed at the start and held at
    zero in every training step.

    A `fit` that is interrupted (KeyboardInterrupt) never ends: in hard mode the model then goes on holding its masks
    until a `fit` with a callback of tfprune ends, or the model is compiled with a new optimizer.

    The epoch logs receive `sparsity`, the measured fraction of zero weights in the pruned kernels, and
    `pruned_filters`, the number of filters that are zero.

    Args:
        stages: What to prune by, one after another, each a fraction of all filters of a group or layer.
        frequency: Prune every this many epochs, and always in the last.
        scope: `"group"` to prune what several layers share together; `"layer"` for each layer on its own.
        mode: `"soft"` or `"hard"`.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Example:

    >>> from tfprune.criteria import l1_norm
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> pruning = FilterPruning([Stage(l1_norm, 0.25)], mode="hard")
    >>> model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[pruning]).history["pruned_filters"]
    [2]
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        frequency: int = 1,
        scope: Scope = "group",
        mode: Mode = "soft",
        exclude: Exclude = None,
    ) -> None:
        super().__init__()
        _check_stages(stages)
        check_choice("scope", scope, ("group", "layer"))
        check_choice("mode", mode, ("soft", "hard"))
        if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency is a whole number of epochs, at least 1. Received: {frequency!r}.")
        self.stages = [stage for stage in stages if stage.sparsity > 0]
        self.frequency = frequency
        self.scope = scope
        self.mode = mode
        self.exclude = exclude
        self._groups: tuple[ChannelGroup, ...] = ()
        self._held: HeldMasks | None = None
        self._epoch: int | None = None
        self._pruned_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the groups and prune once before training; errors come here, before time is spent."""
        groups = channel_groups(self.model, self.exclude)
        if self.scope == "group":
            self._groups = groups.free
        else:
            self._groups = _single_layers(groups, resolve_exclude(self.model, self.exclude))
        self._check_groups(groups)
        self._epoch = self._pruned_epoch = None
        masks = self._choose(final=self.mode == "hard")
        if self.mode == "hard":
            self._held = HeldMasks(self.model, masks, self.params)
        else:
            apply_masks(self.model, masks)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember which epoch runs."""
        self._epoch = epoch

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
            self._held.release()
            self._held = None
        else:
            apply_masks(self.model, self._choose(final=True))

    def _check_groups(self, groups: ChannelGroups) -> None:
        if not self._groups:
            raise ValueError(f"{type(self).__name__} finds no prunable layer in {self.model.name!r}.\n{groups}")
        widest = max(group.size for group in self._groups)
        if not any(Channel().count(widest, stage.sparsity) for stage in self.stages):
            rates = ", ".join(f"{stage.sparsity:g}" for stage in self.stages)
            raise ValueError(
                f"At a rate of {rates} no filter would be pruned: the widest layer has {widest} filters, and counts "
                f"are rounded down. Use a rate of at least {1 / widest:.3g}."
            )

    def _prune(self, epoch: int) -> None:
        last = epoch + 1 == self.params.get("epochs")
        due = (epoch + 1) % self.frequency == 0 or last
        if self.mode == "soft" and due and self._pruned_epoch != epoch:
            apply_masks(self.model, self._choose(final=last))
            self._pruned_epoch = epoch

    def _choose(self, final: bool) -> Masks:
        choice = [(group, select_channels(group, self.stages)) for group in self._groups]
        if final:
            return channel_masks(choice, ("producer", "affine"))
        return channel_masks([(_made_only(group), keep) for group, keep in choice], ("producer", "affine"))

    def _measure(self) -> tuple[float, int]:
        kernels = [member.variable for group in self._groups for member in group.producers]
        zeros = sum(int((kernel.numpy() == 0).sum()) for kernel in kernels)
        size = sum(int(np.prod(kernel.shape)) for kernel in kernels)
        filters = sum(int(zero_channels(group.producers, group.size).sum()) for group in self._groups)
        return zeros / size, filters


def _check_stages(stages: Sequence[Stage]) -> None:
    total = sum(stage.sparsity for stage in stages)
    if total >= 1:
        raise ValueError(f"The rates add up to {total:g} and would empty every layer; their sum must be below 1.")
    if total == 0:
        raise ValueError("All rates are 0, so nothing would be pruned. Give a rate above 0, such as 0.4.")


def _made_only(group: ChannelGroup) -> ChannelGroup:
    """The group cut down to the layers that make the channels: their kernels and biases."""
    makers = {id(member.layer) for member in group.producers}
    members = tuple(member for member in group.members if id(member.layer) in makers)
    return ChannelGroup(group.name, group.size, members, group.frozen)


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
