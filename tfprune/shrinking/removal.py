"""Remove dead channels: a new, plain Keras model with the same outputs."""

import warnings
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfprune.graph import Analysis, ChannelGroup, ChannelGroups, analyse
from tfprune.graph.liveness import CONSTANT, arrivals
from tfprune.layers import scaling_factors
from tfprune.parts.channels import zero_channels
from tfprune.rewriting.cloning import duplicate, rebuild
from tfprune.rewriting.optimizer_state import check_carries
from tfprune.shrinking.constants import fold_constants, probe_inputs, run
from tfprune.shrinking.factors import adds_zeros, fold_scaling_factors
from tfprune.shrinking.input_selection import ended_channels
from tfprune.shrinking.narrowing import check_only_zeros, narrow

RESIDUAL = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}
"""A larger difference from the masked model, relative to its largest output, is told to the user."""

Keep = Mapping[ChannelGroup, Sequence[int] | np.ndarray]
"""For groups from `channel_groups`, the indices of the channels that stay."""


def shrink(
    model: keras.Model,
    keep: Keep | None = None,
    *,
    approximate: bool = False,
    select_inputs: bool = False,
    carry_optimizer: bool = False,
) -> keras.Model:
    """Remove every channel that carries no information, and return a smaller, plain Keras model.

    A channel is removed when, wherever it is read, it is zero (its kernel slices, biases, gamma and beta are
    zero, as the callbacks of tfprune leave them) or the same constant for every input (gamma is zero but beta
    is not, or the activation does not map zero to zero). Zeros are removed exactly. Constants are folded into
    the bias of the layer that reads them, which is exact but for the borders of padded convolutions; a
    difference that can be measured is told in a warning.

    Layer names, data types and compile settings are kept, with a fresh optimizer: a learning rate schedule starts
    anew, so compile again to fine-tune with another. With `carry_optimizer` the optimizer goes on where the model's is,
    and the smaller model trains on as the model would with those channels held at zero. The result saves and loads
    without tfprune. The model itself is not changed. Every layer keeps at least one channel.

    A residual branch that adds zeros for every input, since the gamma and beta or the kernel and bias at its end are
    zero, is left out with its addition. `tfprune.layers.ScalingFactor` layers go as well: branches whose factor is zero
    in the same way, and all other factors become part of weights.

    With `keep`, exactly the channels that it does not list are removed, as if they had been masked first.

    Args:
        model: A built Sequential, functional or subclassed Keras model.
        keep: For groups of `tfprune.channel_groups(model)`, the indices of the channels that stay; other groups
            stay whole. `None` to remove what is dead.
        approximate: Remove dead channels also where a layer mixes them with others (LayerNormalization,
            softmax over channels), which changes the outputs.
        select_inputs: Narrow also branches whose BatchNormalization ends channels that others still read (gamma and
            beta are zero), as in pre-activation ResNets: a `keras.ops.take` in front of it takes the others. It
            copies its input, so measure whether that pays on your device.
        carry_optimizer: Give the new optimizer what the model's has: its count of steps, learning rate and loss scale,
            and of momentum and averages the parts of the channels that stay. Only channels that are zero can go so.

    Returns:
        A new model of the same class. A subclassed model with a `call` of its own comes back as a plain functional
        model that computes what `call` does at inference, as do layers made of other layers. A warning names what of a
        class that trains in a way of its own is lost so.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `keep` is not a mapping from groups.
        ValueError: If it is not built or cannot be read layer by layer, or `keep` names a foreign or frozen group,
            an index out of range, or no channel at all; with `carry_optimizer`, if the optimizer's state cannot be cut
            to channels, or channels would leave constants in biases, which then train in another way.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((2,)), keras.layers.Dense(3, "relu", name="hidden"), keras.layers.Dense(1)])
    >>> kernel = model.layers[0].kernel.assign([[1.0, 0.0, 2.0], [3.0, 0.0, 4.0]])
    >>> small = shrink(model)
    >>> small.get_layer("hidden").units
    2
    """
    if carry_optimizer:
        if approximate or select_inputs:
            raise ValueError(
                "carry_optimizer goes with neither approximate nor select_inputs, which change what trains."
            )
        return _shrink_in_training(model, keep)
    small = _shrink(model, keep, approximate, quiet=select_inputs)
    if select_inputs:
        selection = ended_channels(small, approximate)
        return small if selection is None else _remove(small, *selection)
    return small


def _shrink_in_training(model: keras.Model, keep: Keep | None) -> keras.Model:
    check_carries(model)
    analysis = analyse(model)
    removed = analysis.removable() if keep is None else _unkept(analysis, keep)
    check_only_zeros(model, analysis, removed, None if keep is None else analysis.alive(removed))
    if keep is None and not removed.size:
        _warn_nothing_dead(analysis)
    return narrow(model, analysis, removed)[0]


def _shrink(model: keras.Model, keep: Keep | None, approximate: bool, quiet: bool) -> keras.Model:
    if keep is not None:
        small = _remove_unkept(model, analyse(model, approximate=approximate), keep)
        return fold_scaling_factors(small) if scaling_factors(small) else small
    if scaling_factors(model) or adds_zeros(model):
        return _shrink_folded(fold_scaling_factors(model), approximate)
    analysis = analyse(model, approximate=approximate)
    removed = analysis.removable()
    if not removed.size and not quiet:
        _warn_nothing_dead(analysis)
    return _remove(model, analysis, removed)


def _shrink_folded(model: keras.Model, approximate: bool) -> keras.Model:
    analysis = analyse(model, approximate=approximate)
    removed = analysis.removable()
    return _remove(model, analysis, removed) if removed.size else model


def _unkept(analysis: Analysis, keep: Keep) -> np.ndarray:
    """The labels of the channels that are not listed."""
    choice = _resolved(analysis, keep)
    removed = np.concatenate([np.zeros(0, int), *[group.labels[~kept] for group, kept in choice]])
    if len(analysis.spare(removed)) < len(removed):
        raise ValueError("keep would leave a part of a split or slice without channels. Keep one of each part.")
    return removed


def _resolved(analysis: Analysis, keep: Keep) -> list[tuple[ChannelGroup, np.ndarray]]:
    if not isinstance(keep, Mapping):
        raise TypeError(
            "keep must map groups of tfprune.channel_groups(model) to the indices that stay. "
            f"Received: {type(keep).__name__}."
        )
    return [resolve_keep(analysis.groups, group, indices) for group, indices in keep.items()]


def _remove_unkept(model: keras.Model, analysis: Analysis, keep: Keep) -> keras.Model:
    alive = analysis.alive(_unkept(analysis, keep))
    levels = [
        arrival.level[~alive[arrival.binding.channels]] for arrival in arrivals(analysis.trace, analysis.labels, alive)
    ]
    if not analysis.trace.approximate and not any((level == CONSTANT).any() for level in levels):
        return rebuild(model, analysis, alive, {})
    return _remove_from_masked_copy(model, analysis, _resolved(analysis, keep))


def _remove_from_masked_copy(
    model: keras.Model, analysis: Analysis, choice: Sequence[tuple[ChannelGroup, np.ndarray]]
) -> keras.Model:
    """Remove channels that are not zero when masked: their constants must be measured first."""
    copy, twins = duplicate(model, analysis)
    again = analyse(copy, approximate=analysis.trace.approximate)
    removed = [np.zeros(0, int)]
    for group, kept in choice:
        for member in group.with_role("producer", "affine"):
            twin, gone = twins[id(member.variable)], member.mark(~kept)
            value = np.moveaxis(twin.numpy(), member.axis, 0)
            value[gone] = 0.0
            twin.assign(np.moveaxis(value, 0, member.axis))
            # The copy may number its channels in another order.
            removed.append(again.labels[again.trace.bindings[id(twin), member.axis].channels[gone]])
    return _remove(copy, again, np.unique(np.concatenate(removed)))


def _remove(model: keras.Model, analysis: Analysis, removed: np.ndarray) -> keras.Model:
    """Build a copy without these labels, which are dead."""
    alive = analysis.alive(removed)
    biases = fold_constants(model, analysis, alive)
    small = rebuild(model, analysis, alive, biases)
    if biases or analysis.trace.approximate:
        _warn_residual(model, small)
    return small


def resolve_keep(
    groups: ChannelGroups, group: ChannelGroup, indices: Sequence[int] | np.ndarray
) -> tuple[ChannelGroup, np.ndarray]:
    """Find a group among those of the model at hand, and turn the indices that stay into bools, or raise.

    Args:
        groups: The groups of the model at hand.
        group: The group that the indices speak of; from another analysis of the same model.
        indices: Indices of the channels that stay.

    Returns:
        The model's own group, and one bool per channel.

    Raises:
        TypeError: If it is not a group.
        ValueError: If the group belongs to another model or is frozen, or the indices are empty, repeated, out of
            range, or leave a layer without channels.
    """
    if not isinstance(group, ChannelGroup):
        raise TypeError(
            f"keep must map groups of tfprune.channel_groups(model) to the indices that stay. Received: {group!r}."
        )
    group = own_group(groups, group, "keep")
    kept = np.asarray(indices)
    in_range = kept.size and kept.dtype.kind in "iu" and kept.min() >= 0 and kept.max() < group.size
    if kept.ndim != 1 or not in_range or len(np.unique(kept)) < kept.size:
        raise ValueError(
            f"keep for the group {group.name!r} must be a list of different indices from 0 to {group.size - 1}, at "
            f"least one. Received: {indices!r}."
        )
    chosen = np.isin(np.arange(group.size), kept)
    empty = [member.layer.name for member in group.members if not chosen[member.channels].any()]
    if empty:
        raise ValueError(
            f"keep for the group {group.name!r} would leave {empty[0]!r} without channels. Keep one of its own too."
        )
    return group, chosen


def own_group(groups: ChannelGroups, group: ChannelGroup, argument: str) -> ChannelGroup:
    """Find a group of another analysis of the same model among its groups at hand, or raise.

    Args:
        groups: The groups of the model at hand.
        group: A group.
        argument: What it was given as, for messages.

    Returns:
        The model's own group.

    Raises:
        ValueError: If the group belongs to another model, or is frozen.
    """
    own = {_identity(each): each for each in groups}
    if _identity(group) not in own:
        raise ValueError(f"The group {group.name!r} is not one of {groups.model!r}. Use tfprune.channel_groups(model).")
    group = own[_identity(group)]
    if group.frozen:
        raise ValueError(f"The group {group.name!r} is frozen: {'; '.join(group.frozen)}. Leave it out of {argument}.")
    return group


def _identity(group: ChannelGroup) -> tuple[int, int]:
    return id(group.producers[0].variable), group.producers[0].axis


def _warn_nothing_dead(analysis: Analysis) -> None:
    masked = sum(int(zero_channels(group.producers, group.size).sum()) for group in analysis.groups)
    hint = (
        f"{masked} channels have zero kernels, but they are frozen or read where their constants cannot be folded: "
        "see print(tfprune.channel_groups(model))."
        if masked
        else "Prune it first, for example with model.fit(..., callbacks=[tfprune.callbacks.FPGM(0.4)])."
    )
    warnings.warn(f"No channel of the model is dead, so the copy has the same size. {hint}", stacklevel=3)


def _warn_residual(model: keras.Model, small: keras.Model) -> None:
    inputs = probe_inputs(model)
    residual = max(
        float(np.abs(before - after).max() / max(np.abs(before).max(), np.finfo("float32").tiny))
        for before, after in zip(run(model, inputs), run(small, inputs), strict=True)
    )
    precisions = {layer.compute_dtype for layer in model.layers} & {*RESIDUAL}
    if residual > max((RESIDUAL[name] for name in precisions), default=RESIDUAL["float32"]):
        warnings.warn(
            f"The smaller model is not exactly the masked one: on random input its outputs differ by up to "
            f"{residual:.2g} of the largest. Constants were folded into padded convolutions, where borders differ, "
            "or channels were removed from layers that mix them. Train a few epochs more, or recalibrate "
            "BatchNormalization.",
            stacklevel=4,
        )
