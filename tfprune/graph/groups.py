"""Groups of channels that must go together, and what stands in the way of removing them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.graph.liveness import dead_labels, stranded
from tfprune.graph.record import Binding, Effect, Role, Trace, connected_components
from tfprune.graph.trace import trace


@dataclass(frozen=True, eq=False)
class Member:
    """The slices of one variable that belong to one group.

    Attributes:
        layer: The layer that owns the variable.
        variable: The variable.
        axis: The axis along which it is sliced.
        role: What the variable does to the channels.
        positions: Positions on the axis that belong to the group; int array.
        channels: For each position, the channel of the group it belongs to; int array of the same length.
        effect: Whether an affine variable multiplies channels or adds to them.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    axis: int
    role: Role
    positions: np.ndarray
    channels: np.ndarray
    effect: Effect | None = None

    def mark(self, chosen: np.ndarray) -> np.ndarray:
        """Return which positions on the whole axis belong to chosen channels.

        Args:
            chosen: One bool per channel of the group.

        Returns:
            One bool per position on the axis; positions outside the group are False.
        """
        marked = np.zeros(self.variable.shape[self.axis], bool)
        marked[self.positions] = chosen[self.channels]
        return marked


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that several layers make, share and read, so that they can only be removed everywhere at once.

    Attributes:
        name: The first layer that makes the channels; with the kind of channels where it makes several, as in
            `"attention/heads"`.
        size: How many channels there are.
        members: The slices of variables that belong to the channels.
        frozen: Why none of them may be removed; empty for a free group.
        labels: The label of each channel in the trace of the model.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen: tuple[str, ...] = ()
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int), repr=False)

    def with_role(self, *roles: Role) -> tuple[Member, ...]:
        """Return the members that play one of these roles."""
        return tuple(member for member in self.members if member.role in roles)

    def keep_one_each(self, dead: np.ndarray) -> np.ndarray:
        """Return which channels to remove so that every variable keeps at least one of its slices.

        Args:
            dead: One bool per channel, True for those that could go.

        Returns:
            One bool per channel; some of the dead are spared.
        """
        dead = dead.copy()
        for member in self.members:
            if dead[member.channels].all():
                dead[member.channels[0]] = False
        return dead

    @property
    def producers(self) -> tuple[Member, ...]:
        """The kernels that make the channels."""
        return self.with_role("producer")


@dataclass(frozen=True)
class ChannelGroups(Report):
    """All channel groups of a model, in the order in which data flows; iterable, and printed as a table.

    Attributes:
        model: The name of the model.
        groups: The groups.
        unread: Layers with weights whose channels are not followed, so that they are in no group; with the reason.
        removable: Labels of the channels that are dead as the weights are now, and that `shrink` removes.
    """

    model: str
    groups: tuple[ChannelGroup, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    removable: np.ndarray = field(default_factory=lambda: np.zeros(0, int), repr=False)

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def free(self) -> tuple[ChannelGroup, ...]:
        """The groups whose channels may be removed."""
        return tuple(group for group in self.groups if not group.frozen)

    def to_dict(self) -> dict[str, Any]:
        """Return names and numbers only, ready for JSON."""
        rows = [
            {
                "name": group.name,
                "channels": group.size,
                "channels_after_shrink": int((~np.isin(group.labels, self.removable)).sum()),
                "made_by": _layer_names(group.producers),
                "read_by": _layer_names(group.with_role("consumer")),
                "frozen": list(group.frozen),
            }
            for group in self.groups
        ]
        return {"model": self.model, "groups": rows, "unread": dict(self.unread)}

    def to_table(self) -> Table:
        """Return one row per group."""
        title = f"Channel groups of {self.model}: {len(self.free)} of {len(self)} free"
        if self.unread:
            title += f", {len(self.unread)} {'layer is' if len(self.unread) == 1 else 'layers are'} not followed"
        table = new_table(title, ["group", "made by", "read by", "frozen because"], ["channels", "after shrink"])
        for row in self.to_dict()["groups"]:
            lists = [", ".join(row[key]) for key in ("made_by", "read_by")]
            widths = [str(row[key]) for key in ("channels", "channels_after_shrink")]
            table.add_row(row["name"], *lists, "; ".join(row["frozen"]) or "-", *widths)
        for name, reason in self.unread.items():
            table.add_row(f"({name})", name, "", reason, "", "")
        return table


def channel_groups(model: keras.Model, exclude: Exclude = None, *, approximate: bool = False) -> ChannelGroups:
    """Find which channels of a model can be removed, which are tied together, and which are frozen and why.

    A residual addition ties the channels of all layers that feed it; a concatenation only lines them up. The
    model's inputs and outputs are frozen, and so is everything that a layer without a rule touches.

    Reference: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, https://arxiv.org/abs/2301.12900

    Args:
        model: A built Sequential, functional or subclassed Keras model.
        exclude: Layers whose channels must all stay: a list of layer objects, or a function from a layer to True for
            those to leave alone; a nested model, wrapper or custom layer stands for all layers inside it.
        approximate: Count channels as free also where a layer mixes them (LayerNormalization, softmax over
            channels), so that removing some changes the others.

    Returns:
        The groups; printing them shows a table, with the widths before and after `tfprune.shrink`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built or cannot be read layer by layer, or `exclude` names a foreign layer.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, name="classes")])
    >>> [(group.name, group.size, group.frozen) for group in channel_groups(model)]
    [('conv', 16, ()), ('classes', 10, ('model output',))]
    """
    analysis = analyse(model, exclude, approximate)
    return replace(analysis.groups, removable=analysis.removable())


def named(groups: ChannelGroups) -> dict[str, ChannelGroup]:
    """Return groups by name; of groups with the same name the second is called `name#2`.

    Args:
        groups: The groups of a model.

    Returns:
        The groups, in their order.
    """
    found: dict[str, ChannelGroup] = {}
    for group in groups:
        name, number = group.name, 1
        while name in found:
            number += 1
            name = f"{group.name}#{number}"
        found[name] = group
    return found


@dataclass(frozen=True)
class Analysis:
    """A traced model and its groups.

    Attributes:
        trace: What tracing recorded.
        labels: For each channel number of the trace, the smallest number that it is tied to.
        groups: The channel groups.
    """

    trace: Trace
    labels: np.ndarray
    groups: ChannelGroups

    def alive(self, removed: np.ndarray) -> np.ndarray:
        """Return, for every channel number of the trace, whether it stays when these labels are removed."""
        return ~np.isin(self.labels, removed)

    def removable(self) -> np.ndarray:
        """Return the labels of the channels that are dead and can go; every slice of a variable keeps one."""
        dead = dead_labels(self.trace, self.labels)
        removed = [group.labels[group.keep_one_each(dead[group.labels])] for group in self.groups.free]
        return self.spare(np.concatenate([np.zeros(0, int), *removed]))

    def spare(self, removed: np.ndarray) -> np.ndarray:
        """Return these labels without one of each tensor that would be left empty, such as a part of a split."""
        gone = np.zeros(self.trace.num_channels, bool)
        gone[removed] = True
        tensors, joined, starts = self._carried
        # Most often no tensor is left empty, which one pass over all of them tells.
        if tensors and np.logical_and.reduceat(gone[joined], starts).any():
            for roots in tensors:
                if gone[roots].all():
                    gone[roots[0]] = False
        return np.flatnonzero(gone)

    @cached_property
    def _carried(self) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """The labels that tensors without frozen ones carry, also joined, and where each begins among those."""
        free = np.ones(self.trace.num_channels, bool)  # also where `cut` ends channels, which no group has then
        for group in self.groups:
            free[group.labels] = not group.frozen
        found: dict[bytes, np.ndarray] = {}
        for channels in self.trace.flows:
            roots = self.labels[channels.ravel()]
            if roots.size and free[roots].all():
                first = roots[np.sort(np.unique(roots, return_index=True)[1])]
                found.setdefault(first.tobytes(), first)
        tensors = [*found.values()]
        starts = np.cumsum([0, *(len(roots) for roots in tensors[:-1])])
        return tensors, np.concatenate([np.zeros(0, int), *tensors]), starts


def analyse(
    model: keras.Model,
    exclude: Exclude = None,
    approximate: bool = False,
    cut: Mapping[int, np.ndarray] | None = None,
) -> Analysis:
    """Trace a model and sort its channels into groups.

    Args:
        model: A built Sequential, functional or subclassed Keras model.
        exclude: Layers whose channels are frozen; see `channel_groups`.
        approximate: Whether groups count as free whose removal changes what others compute; see `channel_groups`.
        cut: For some tensors, by the id of the KerasTensor, the channels that are followed no further; see `Trace.cut`.

    Returns:
        The groups, and the trace that they were found by.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(3)])
    >>> [group.size for group in analyse(model).groups if not group.frozen]
    [8]
    """
    record = trace(model, approximate, cut)
    labels = record.components()
    _freeze_constants(record, labels)
    reasons = _frozen_reasons(record, labels, exclude, model)
    group_of = _join_axes(record, labels)
    bound: dict[int, list[tuple[Binding, np.ndarray]]] = {}
    for binding in record.bindings.values():
        roots = labels[binding.channels]
        for group in np.unique(group_of[roots]).tolist():
            bound.setdefault(group, []).append((binding, roots))
    groups = [_make_group(group, bound[group], group_of, reasons) for group in sorted(bound)]
    return Analysis(
        record, labels, ChannelGroups(model.name, tuple(group for group in groups if group.producers), record.unread)
    )


def _freeze_constants(record: Trace, labels: np.ndarray) -> None:
    """Freeze channels that still carry something when masked, where a layer that reads them cannot absorb it."""
    frozen = np.zeros(record.num_channels, bool)
    for channels in [np.array([*record.opaque], int), *(channels for channels, _ in record.frozen)]:
        frozen[labels[channels]] = True
    for call, channels in stranded(record, labels, alive=np.zeros(record.num_channels, bool)):
        channels = channels[~frozen[labels[channels]]]  # those were never masked
        if channels.size:
            reason = f"a removed channel would leave a constant that {call.layer.name!r} cannot absorb"
            record.frozen.append((channels, reason))


def _frozen_reasons(
    record: Trace, labels: np.ndarray, exclude: Exclude, model: keras.Model
) -> dict[int, dict[str, None]]:
    """Why each channel is frozen; a dict of reasons keeps their order and drops repeats."""
    leave_alone = resolve_exclude(model, exclude)
    excluded = [
        (binding.channels, f"{binding.layer.name!r} is excluded")
        for binding in record.bindings.values()
        if binding.role != "consumer" and leave_alone.holds(binding.variable)
    ]
    reasons: dict[int, dict[str, None]] = {}
    for channels, reason in [*record.frozen, *excluded]:
        for root in np.unique(labels[channels]).tolist():
            reasons.setdefault(root, {})[reason] = None
    return reasons


def _join_axes(record: Trace, labels: np.ndarray) -> np.ndarray:
    """Join channels that one kernel makes: a group is what is ranked and counted together."""
    made = [labels[binding.channels] for binding in record.bindings.values() if binding.role == "producer"]
    if not made:
        return labels
    first = np.concatenate([np.full(len(roots) - 1, roots[0]) for roots in made])
    return connected_components(labels, first, np.concatenate([roots[1:] for roots in made]))[labels]


def _make_group(
    group: int,
    bound: list[tuple[Binding, np.ndarray]],
    group_of: np.ndarray,
    reasons: dict[int, dict[str, None]],
) -> ChannelGroup:
    slices = [(binding, roots, np.flatnonzero(group_of[roots] == group)) for binding, roots in bound]
    order = np.unique(np.concatenate([roots[positions] for _, roots, positions in slices]))
    members = tuple(
        Member(
            binding.layer,
            binding.variable,
            binding.axis,
            binding.role,
            positions,
            np.searchsorted(order, roots[positions]),
            binding.effect,
        )
        for binding, roots, positions in slices
    )
    frozen = {reason: None for root in order.tolist() for reason in reasons.get(root, ())}
    name = next((_name(binding) for binding, _ in bound if binding.role == "producer"), "")
    return ChannelGroup(name, len(order), members, tuple(frozen), order)


def _name(binding: Binding) -> str:
    return f"{binding.layer.name}/{binding.part}" if binding.part else binding.layer.name


def _layer_names(members: tuple[Member, ...]) -> list[str]:
    return list(dict.fromkeys(member.layer.name for member in members))
