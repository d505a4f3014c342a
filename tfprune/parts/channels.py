"""Choose channels of a group by criteria, and turn the choice into masks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.criteria import ChannelCriterion
from tfprune.granularity import Channel, prune_lowest
from tfprune.graph import ChannelGroup, Member, Role
from tfprune.graph.liveness import nonzero_slices
from tfprune.training.masks import Masks


@dataclass(frozen=True)
class Stage:
    """One pass of a selection: which fraction of all channels goes, by which criterion."""

    criterion: ChannelCriterion
    sparsity: float


def score_channels(group: ChannelGroup, criterion: ChannelCriterion, among: np.ndarray | None = None) -> np.ndarray:
    """Score the channels of a group by the kernels that make them.

    Where several kernels make a channel, as across a residual addition, its score is the mean over them.
    Channels that are zero already score lowest (a criterion that measures distances would not know), and the best
    channel of a layer that holds only a part of the group scores highest, so that the layer cannot vanish.

    Args:
        group: The channel group.
        criterion: The criterion; it sees one kernel at a time, cut down to the channels asked for.
        among: Which channels to score and compare, as a bool per channel of the group; all if left out.

    Returns:
        One float64 score per channel of the group; infinite for those not asked for.

    Raises:
        TypeError: If the criterion is not a function.
        ValueError: If it does not return one score per channel.
    """
    if not callable(criterion):
        raise TypeError(
            "criterion must be a function from (weights, axis) to one score per channel, such as "
            f"tfprune.criteria.l1_norm. Received: {criterion!r}."
        )
    among = np.ones(group.size, bool) if among is None else among
    total, times = np.zeros(group.size), np.zeros(group.size)
    for member in group.producers:
        wanted = among[member.channels]
        kernel = np.take(member.variable.numpy(), member.positions[wanted], axis=member.axis)
        found = np.asarray(criterion(kernel, member.axis))
        if found.shape != (kernel.shape[member.axis],):
            raise ValueError(
                f"The criterion must return one score for each of the {kernel.shape[member.axis]} channels on axis "
                f"{member.axis} of weights of shape {kernel.shape}. It returned the shape {found.shape}."
            )
        np.add.at(total, member.channels[wanted], found)
        np.add.at(times, member.channels[wanted], 1.0)
    scores = np.divide(total, times, out=np.full(group.size, np.inf), where=times > 0)
    scores[zero_channels(group.producers, group.size) & among] = -np.inf
    for member in group.members:
        if len(np.unique(member.channels)) < group.size:
            scores[member.channels[np.argmax(scores[member.channels])]] = np.inf
    return scores


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
    for stage in stages:
        scores = score_channels(group, stage.criterion, keep)
        keep &= drop_lowest(scores, Channel().count(group.size, stage.sparsity), among=keep)
    return keep


def drop_lowest(scores: np.ndarray, count: int, among: np.ndarray) -> np.ndarray:
    """Return which channels stay when the `count` lowest scores among some of them go; infinite scores stay.

    Args:
        scores: One score per channel.
        count: How many should go.
        among: Which channels may go, as a bool per channel.

    Returns:
        One bool per channel.
    """
    keep = among.copy()
    keep[among] = prune_lowest(scores[among], min(count, int((scores[among] < np.inf).sum())))
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
        np.logical_or.at(alive, member.channels, nonzero_slices(member.variable, member.axis)[member.positions])
    return ~alive


def channel_masks(choice: Iterable[tuple[ChannelGroup, np.ndarray]], roles: Sequence[Role]) -> Masks:
    """Turn chosen channels into masks over the variables that make and carry them.

    Args:
        choice: Groups, each with one bool per channel, True for those that stay.
        roles: Which members to mask: `("producer",)` for kernels only, `("producer", "affine")` for
            everything that must be zero for the channel to be zero.

    Returns:
        For each variable path, a bool array of the variable's shape, False where weights are pruned.

    Example:

    >>> import keras
    >>> from tfprune import channel_groups
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> (group,) = channel_groups(model).free
    >>> masks = channel_masks([(group, np.array([True, False, True]))], ("producer", "affine"))
    >>> [mask.all(axis=0).tolist() for mask in masks.values() if mask.ndim == 2]
    [[True, False, True]]
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
