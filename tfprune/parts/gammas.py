"""The gammas of BatchNormalization as switches of channels: what becomes zero when a gamma does.

Whether a zero gamma removes a channel depends on the ways that lead from the kernels that make it to the layers that
read it. One channel, the letters being calls:

    conv --> bn --> relu --> C        every way to a reader leads through a gamma: it switches the channel of the group

    trunk ---+--> bn --> relu --> C   C reads it behind the gamma, D on another way, without:
             '-------------> D        the gamma selects the inputs of C, the trunk keeps the channel

    x ---+--> conv --> bn ---(+)--> C    the channel meets itself: the addition ties both inputs, and goes on with what
         '-------------------'           the other one carries. The gammas of *all* terms together switch it, if each
                                         has one; this gamma alone does nothing

For each gamma, `_follow` walks the calls once and notes for every tensor which of its channels have passed it: where
one is read on a way that has not, the ways *fork*; where both come into one call, they *join*. A gamma selects inputs
where ways fork and do not join; a product joins nothing, since one zero factor is enough. `_bare_labels` then walks
once for all gammas and asks which channels still reach a reader on a way without any: a group with such channels has no
switch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import Analysis, Call, ChannelGroup
from tfprune.graph.record import Binding, Role
from tfprune.parts.structures import Slices, Structure, of_group
from tfprune.training.step import Weight

Leave = Callable[[keras.layers.Layer], bool]


@dataclass(frozen=True, eq=False)
class Switched:
    """Channels that gammas switch off: those of a channel group, or those that one layer hands on to its readers.

    Where every way from the kernels of a group to the layers that read it leads through a gamma, zero gammas remove the
    channels of the group. Where a BatchNormalization stands in a branch of its own, as in a pre-activation ResNet
    or a DenseNet, a zero gamma keeps the channel from the readers of that branch only: it selects their inputs.

    Attributes:
        structure: The gammas, by channel; its group is `None` where gammas select inputs.
        carriers: All that is zero when a channel is switched off: what makes and carries the channels of a group; of a
            selection gamma, beta and the slices of the kernels that read it.
    """

    structure: Structure
    carriers: Structure

    @property
    def selects_inputs(self) -> bool:
        """Whether the channels stay for other readers."""
        return self.structure.group is None

    def magnitudes(self) -> np.ma.MaskedArray:
        """Return |gamma| for every channel, a row for each BatchNormalization; masked where it has no part in it."""
        rows = np.ma.masked_all((len(self.structure.slices), self.structure.size))
        for row, one in zip(rows, self.structure.slices, strict=True):
            inside = one.parts >= 0
            row[one.parts[inside]] = np.abs(one.variable.numpy()[inside])
        return rows

    def protected(self, scores: np.ndarray, min_channels: int) -> np.ndarray:
        """Return which channels must stay: the best `min_channels`, and the best of each variable with a part of them.

        Args:
            scores: One score per channel.
            min_channels: How many stay.

        Returns:
            One bool per channel.
        """
        stays = np.zeros(len(scores), bool)
        stays[np.argsort(-scores, kind="stable")[:min_channels]] = True
        for member in self.structure.group.members if self.structure.group is not None else ():
            if not stays[member.channels].any():
                stays[member.channels[np.argmax(scores[member.channels])]] = True
        return stays

    def zero(self) -> np.ndarray:
        """Return which channels are exactly zero in everything that carries them."""
        found = np.ones(self.structure.size, bool)
        for one in self.carriers.slices:
            others = tuple(axis for axis in range(len(one.variable.shape)) if axis not in one.axes)
            alive = (one.variable.numpy() != 0).any(axis=others) & (one.parts >= 0)
            found[one.parts[alive]] = False
        return found


def not_trained(layer: keras.layers.Layer) -> bool:
    """Return whether the gamma of a BatchNormalization is not trained."""
    return not layer.gamma.trainable


def switched_channels(analysis: Analysis, leave: Leave = not_trained) -> list[Switched]:
    """Find which channels the gammas of a model switch off.

    Args:
        analysis: The analysis of a model.
        leave: Which BatchNormalizations to leave alone, of those that have a gamma.

    Returns:
        In the order in which data flows; empty if there are none.

    Example:

    >>> from tfprune.graph import analyse
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.BatchNormalization(),
    ...     keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    >>> [(each.structure.name, each.structure.size) for each in switched_channels(analyse(model))]
    [('conv', 4)]
    """
    trace, labels = analysis.trace, analysis.labels
    free = np.zeros(trace.num_channels, bool)
    for group in analysis.groups.free:
        free[group.labels] = True
    gates = [
        _Gate(number, call, binding, labels[binding.channels])
        for number, call in enumerate(trace.calls)
        for binding in call.bindings
        if _is_gamma(binding, call) and not leave(call.layer)
    ]
    steps = _steps(analysis)
    for gate in gates:
        _follow(gate, steps, analysis)
    bare = _bare_labels(analysis, steps, gates)
    found = [_of_group(group, gates) for group in analysis.groups.free if not bare[group.labels].any()]
    found += [_of_selection(gate, analysis, free) for gate in gates]
    return [each for each in found if each is not None]


class _Gate:
    """One call of a BatchNormalization, and how far its gamma reaches."""

    def __init__(self, number: int, call: Call, binding: Binding, roots: np.ndarray) -> None:
        self.number, self.call, self.binding, self.roots = number, call, binding, roots
        self.reads: list[Binding] = []
        self.selects = np.zeros(0, int)

    @property
    def positions(self) -> np.ndarray:
        """For each position of the gamma, whether it selects inputs."""
        return np.isin(self.roots, self.selects)


def _is_gamma(binding: Binding, call: Call) -> bool:
    layer = call.layer
    return type(layer) is keras.layers.BatchNormalization and binding.variable is layer.gamma


@dataclass(frozen=True, eq=False)
class _Step:
    """One call, with the labels of its channels: those of each input and output, those that it reads, and makes."""

    call: Call
    arriving: tuple[np.ndarray, ...]
    leaving: tuple[np.ndarray, ...]
    reads: tuple[np.ndarray, ...]
    made: tuple[np.ndarray, ...]


def _steps(analysis: Analysis) -> list[_Step]:
    labels = analysis.labels

    def unique(arrays: Iterable[np.ndarray]) -> tuple[np.ndarray, ...]:
        return tuple(np.unique(labels[channels]) for channels in arrays)

    return [
        _Step(
            call,
            unique(call.inputs),
            unique(call.outputs),
            unique([*_bound(call, "consumer"), *call.reads]),
            unique(_bound(call, "producer")),
        )
        for call in analysis.trace.calls
    ]


def _bound(call: Call, role: Role) -> list[np.ndarray]:
    return [binding.channels for binding in call.bindings if binding.role == role]


def _follow(gate: _Gate, steps: Sequence[_Step], analysis: Analysis) -> None:
    """Follow the channels behind a gamma: who reads them, and whether they meet themselves on another way."""
    own = np.unique(gate.roots)
    place = np.full(analysis.trace.num_channels, -1)
    place[own] = np.arange(len(own))

    def among(roots: np.ndarray) -> np.ndarray:
        chosen = np.zeros(len(own), bool)
        chosen[place[roots][place[roots] >= 0]] = True
        return chosen

    behind = {gate.call.output_flows[0]: among(own)}
    joined, forked = among(own[:0]), among(own[:0])
    for number, step in enumerate(steps):
        here = [among(roots) for roots in step.arriving]
        if not any(each.any() for each in here):
            continue
        inside, outside = among(own[:0]), among(own[:0])
        for flow, each in zip(step.call.input_flows, here, strict=True):
            passed = behind.get(flow, joined & False)
            inside |= each & passed
            outside |= each & ~passed
        if step.call.is_product:
            outside &= ~inside  # one zero factor is enough
        joined |= inside & outside
        for roots in step.reads:
            forked |= among(roots) & outside
        if number == gate.number or not inside.any():
            continue
        gate.reads += [each for each in step.call.bindings if each.role == "consumer"]
        for roots in step.made:  # a residual branch makes the channels of its input anew
            inside &= ~among(roots)
        for flow, roots in zip(step.call.output_flows, step.leaving, strict=True):
            behind[flow] = among(roots) & inside
    if sum(step.call.layer is gate.call.layer for step in steps) == 1:
        gate.selects = own[forked & ~joined]


def _bare_labels(analysis: Analysis, steps: Sequence[_Step], gates: Sequence[_Gate]) -> np.ndarray:
    """Which channels reach a reader from a kernel on a way without a gamma, but for those that select inputs."""
    none = np.zeros(analysis.trace.num_channels, bool)
    bare: dict[int, np.ndarray] = {}
    found = none.copy()
    at_call = {gate.number: gate for gate in gates}
    for number, step in enumerate(steps):
        state, seen = none.copy(), none.copy()
        for flow, roots in zip(step.call.input_flows, step.arriving, strict=True):
            arriving = bare.get(flow, none)[roots]
            both = state[roots] & arriving if step.call.is_product else state[roots] | arriving
            state[roots] = np.where(seen[roots], both, arriving)
            seen[roots] = True
        for roots in step.reads:
            found[roots] |= state[roots]
        for roots in step.made:
            state[roots] = True
        if number in at_call:
            gate = at_call[number]
            state[gate.roots[~gate.positions]] = False
        for flow, roots in zip(step.call.output_flows, step.leaving, strict=True):
            bare[flow] = none.copy()
            bare[flow][roots] = state[roots]
    return found


def _of_group(group: ChannelGroup, gates: Sequence[_Gate]) -> Switched | None:
    slices: dict[int, Slices] = {}
    for gate in gates:
        parts = _parts(gate.roots, group.labels, ~gate.positions)
        if (parts >= 0).any():
            slices[id(gate.binding.variable)] = Slices(gate.binding.variable, (gate.binding.axis,), parts)
    covered = np.zeros(group.size, bool)
    for one in slices.values():
        covered[one.parts[one.parts >= 0]] = True
    if not covered.all():
        return None
    structure = Structure(group.name, group.size, tuple(slices.values()), group)
    return Switched(structure, of_group(group, "producer", "affine", trainable_only=False))


def _of_selection(gate: _Gate, analysis: Analysis, free: np.ndarray) -> Switched | None:
    labels = gate.selects[free[gate.selects]]
    if not labels.size:
        return None
    every = np.ones(len(gate.roots), bool)
    gammas = Slices(gate.binding.variable, (gate.binding.axis,), _parts(gate.roots, labels, every))
    layer = gate.call.layer
    carriers = [gammas]
    if layer.beta is not None:
        carriers.append(Slices(layer.beta, (0,), gammas.parts))
    for binding in gate.reads:
        if sum(call.layer is binding.layer for call in analysis.trace.calls) == 1:
            roots = analysis.labels[binding.channels]
            parts = _parts(roots, labels, np.ones(len(roots), bool))
            carriers.append(Slices(binding.variable, (binding.axis,), parts))
    structure = Structure(layer.name, len(labels), (gammas,))
    return Switched(structure, Structure(layer.name, len(labels), tuple(carriers)))


def _parts(roots: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """For each root its place among sorted labels, or -1."""
    place = np.searchsorted(labels, roots)
    inside = chosen & (place < len(labels))
    inside &= labels[np.minimum(place, len(labels) - 1)] == roots
    return np.where(inside, place, -1)


def describe_missing(model: keras.Model, analysis: Analysis) -> str:
    """Return why no gamma of a model can be used, for an error message."""
    layers: list[Any] = [c.layer for c in analysis.trace.calls if type(c.layer) is keras.layers.BatchNormalization]
    if not layers:
        return f"{model.name!r} has no BatchNormalization, so there is no gamma to prune by."
    if all(layer.gamma is None for layer in layers):
        return f"No BatchNormalization of {model.name!r} has a gamma: all are made with scale=False."
    return (
        f"No channel of {model.name!r} is switched by the gamma of a BatchNormalization: the gammas are missing "
        "(scale=False), not trainable or excluded, the channels are frozen, or some layers that make them have none."
    )


def shares(structure: Structure, weight: Weight) -> list[Any]:
    """Return which gamma of each channel is the largest: of a structure's slices, 1 for it and 0 for the others.

    Of several that are equally large each has its share: the subgradient of the maximum.

    Args:
        structure: Gammas by channel.
        weight: From a variable to its value.

    Returns:
        For each of the slices a float32 tensor of one number per channel.

    Example:

    >>> gammas = [keras.Variable([3.0, -1.0]), keras.Variable([2.0, 1.0])]
    >>> both = Structure("sum", 2, tuple(Slices(gamma, (0,), np.arange(2)) for gamma in gammas))
    >>> [share.numpy().tolist() for share in shares(both, ops.convert_to_tensor)]
    [[1.0, 0.5], [0.0, 0.5]]
    """
    rows = []
    for one in structure.slices:
        squared = one.squared_norms(weight(one.variable), structure.size)
        rows.append(ops.where(np.isin(np.arange(structure.size), one.parts), squared, -1.0))
    squares = ops.stack(rows)
    largest = ops.cast(ops.equal(squares, ops.max(squares, axis=0, keepdims=True)), "float32")
    return list(ops.unstack(largest / ops.sum(largest, axis=0, keepdims=True)))
