"""The channels of a group: as a criterion sees them, which are zero already, and a choice of them as masks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tfprune.criteria import ChannelView, MemberView
from tfprune.granularity import prune_lowest
from tfprune.granularity.ranks import refuse_nan
from tfprune.graph import ChannelGroup, Member, Role
from tfprune.graph.liveness import nonzero_slices
from tfprune.training.masks import Masks

Known = Mapping[str, np.ndarray]
"""What data says, by the name of the statistic."""


def view_of(
    group: ChannelGroup,
    among: np.ndarray | None = None,
    statistics: Known | None = None,
    of_variable: Callable[[str], Known] | None = None,
) -> ChannelView:
    """Return what a criterion sees of the channels of a group.

    Args:
        group: The channel group.
        among: Which channels to show, as a bool per channel of the group; all if left out.
        statistics: What data says about the channels of the group, by name; arrays of shape (channels, ...).
        of_variable: From the path of a variable to what data says about it, by name; arrays of the variable's shape.

    Returns:
        The view, in which the chosen channels are numbered from 0; members that hold none of them are left out.

    Example:

    >>> import keras
    >>> from tfprune.graph import channel_groups
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)])
    >>> view = view_of(channel_groups(model).free[0])
    >>> [(member.name, member.role, member.rows.shape) for member in view.members]
    [('kernel', 'producer', (8, 4)), ('bias', 'affine', (8, 1)), ('kernel', 'consumer', (8, 3))]
    """
    among = np.ones(group.size, bool) if among is None else among
    members = (
        _view_of_member(member, among, of_variable(member.variable.path) if of_variable else {})
        for member in group.members
    )
    shown = {name: array[among] for name, array in (statistics or {}).items()}
    return ChannelView(
        group.name,
        int(among.sum()),
        tuple(member for member in members if len(member.channels)),
        statistics=MappingProxyType(shown),
    )


def _view_of_member(member: Member, among: np.ndarray, statistics: Known) -> MemberView:
    shown = among[member.channels]
    positions = member.positions[shown]
    shape = tuple(member.variable.shape)
    sliced = {
        name: np.take(array, positions, axis=member.axis) for name, array in statistics.items() if array.shape == shape
    }
    return MemberView(
        member.variable.name,
        lambda: np.take(member.variable.numpy(), positions, axis=member.axis),
        member.role,
        member.effect,
        member.axis,
        (np.cumsum(among) - 1)[member.channels[shown]],
        statistics=MappingProxyType(sliced),
        layer=member.variable.path.rpartition("/")[0],
    )


def order_of_going(scores: np.ndarray) -> np.ndarray:
    """Return the channels that may go, the first to go first: the lowest score, and of equal ones the later.

    Args:
        scores: One score per channel; infinite ones stay.

    Returns:
        Their positions.

    Raises:
        ValueError: If a score is NaN.

    Example:

    >>> order_of_going(np.array([2.0, 1.0, np.inf, 1.0]))
    array([3, 1, 0])
    """
    refuse_nan(scores)
    order = np.lexsort((-np.arange(len(scores)), scores))
    return order[scores[order] < np.inf]


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
