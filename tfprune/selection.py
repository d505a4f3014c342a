"""Choose channels of a group by criteria, and turn the choice into masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.criteria import ChannelCriterion
from tfprune.granularity import Channel, prune_lowest
from tfprune.graph import ChannelGroup, Member, Role
from tfprune.masking import Masks


@dataclass(frozen=True)
class Stage:
    """One pass of a selection: which fraction of all channels goes, by which criterion."""

    criterion: ChannelCriterion
    sparsity: float


def score_channels(group: ChannelGroup, criterion: ChannelCriterion, among: np.ndarray) -> np.ndarray:
    """Score some channels of a group by the kernels that make them.

    Where several kernels make a channel, as across a residual addition, its score is the mean over them.

    Args:
        group: The channel group.
        criterion: The criterion; it sees one kernel at a time, cut down to the channels asked for.
        among: Which channels to score, as a bool per channel of the group. The criterion compares only these.

    Returns:
        One float64 score per channel of the group; NaN for those not asked for.
    """
    total = np.zeros(group.size)
    times = np.zeros(group.size)
    for member in group.producers:
        wanted = among[member.channels]
        kernel = member.variable.numpy()
        kernel = np.take(kernel, member.positions[wanted], axis=member.axis)
        np.add.at(total, member.channels[wanted], criterion(kernel, member.axis))
        np.add.at(times, member.channels[wanted], 1.0)
    return np.divide(total, times, out=np.full(group.size, np.nan), where=times > 0)


def select_channels(group: ChannelGroup, stages: Sequence[Stage]) -> np.ndarray:
    """Choose the channels of a group that stay, stage by stage, each among those that the last one left.

    Channels that are zero already go first, so pruning again at the same sparsity changes nothing.

    Args:
        group: The channel group.
        stages: The criteria and the fraction of all channels that goes by each.

    Returns:
        One bool per channel, True for those that stay; exactly the sum of the stages' counts is False.
    """
    keep = np.ones(group.size, bool)
    # A removed kernel slice is often exactly zero; a criterion that measures distances would not know that.
    dead = zero_channels(group.producers, group.size)
    for stage in stages:
        count = Channel().count(group.size, stage.sparsity)
        scores = score_channels(group, stage.criterion, keep)
        scores[dead & keep] = -np.inf
        keep[keep] = prune_lowest(scores[keep], count)
    return keep


def zero_channels(members: Iterable[Member], size: int) -> np.ndarray:
    """Return which channels of a group are exactly zero in all of these members' variables.

    Args:
        members: Members of one group.
        size: The number of channels in the group.

    Returns:
        One bool per channel.
    """
    alive = np.zeros(size, bool)
    for member in members:
        values = member.variable.numpy()
        other_axes = tuple(axis for axis in range(values.ndim) if axis != member.axis)
        np.logical_or.at(alive, member.channels, (values != 0).any(axis=other_axes)[member.positions])
    return ~alive


def channel_masks(choice: Iterable[tuple[ChannelGroup, np.ndarray]], roles: Sequence[Role]) -> Masks:
    """Turn chosen channels into masks over the variables that make and carry them.

    Args:
        choice: Groups, each with one bool per channel, True for those that stay.
        roles: Which members to mask: `("producer",)` for kernels only, `("producer", "affine")` for
            everything that must be zero for the channel to be zero.

    Returns:
        For each variable path, a bool array of the variable's shape, False where weights are pruned.
    """
    masks: Masks = {}
    for group, keep in choice:
        for member in group.with_role(*roles):
            shape = [1] * len(member.variable.shape)
            shape[member.axis] = -1
            gone = member.mark(~keep).reshape(shape)
            mask = masks.setdefault(member.variable.path, np.ones(tuple(member.variable.shape), bool))
            mask &= ~gone
    return masks
