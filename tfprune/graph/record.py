"""What is written down while channels are followed through a model: `Trace` for the whole, `Call` for one call.

Each channel gets a number where it is made. A tensor is described by an integer array of such numbers that
broadcasts to the tensor's shape (without the batch axis): a feature map of 16 channels has shape (1, 1, 16).
Layers that move channels then move numbers with plain NumPy (`concatenate`, `reshape`, `repeat`), and two
channels that must live or die together are tied.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import keras
import numpy as np

from tfprune.graph.walk import Node, Shape

Role = Literal["producer", "affine", "statistics", "consumer"]
"""What a variable does to a channel: a kernel slice makes it, affine parameters (bias, gamma, beta, depthwise
kernel) act on it alone, statistics (moving mean and variance) follow it, and a later kernel consumes it."""

Effect = Literal["scale", "shift"]
"""How a variable changes a channel that is constant: a zero scale (gamma, depthwise kernel) makes it zero, a shift
that is not zero (bias, beta) makes zero a constant."""


@dataclass(frozen=True)
class Binding:
    """One axis of one variable, and the channel that each position on it belongs to.

    `part` names the channels where one layer makes several kinds, such as the heads of an attention layer.
    """

    layer: keras.layers.Layer
    variable: keras.Variable
    axis: int
    role: Role
    channels: np.ndarray
    effect: Effect | None = None
    part: str = ""


@dataclass
class Trace:
    """What tracing a model records.

    Attributes:
        num_channels: How many channel numbers were given out.
        bindings: For each variable (by id) and axis, the channels along it.
        ties: Pairs of channels that must live and die together.
        frozen: Channels that must stay, with the reason.
        opaque: Numbers that stand for a whole tensor whose channels are not followed, with the reason.
        flows: For each tensor, the channels that it carries.
        calls: The calls of layers, in the order in which data flows.
        raw: The variables (by id) that operations use directly, without a layer.
        entries: For each nested model or layer made of layers (by id), the numbers of the tensors that go into it.
        views: For each nested model or layer made of layers (by id), the functional model that it stands for.
        config_sizes: For each layer that is kept whole (by id), entries of its config that hold a number of channels,
            with these.
        unread: Layers with weights whose channels are not followed, by name, with the reason.
        repeats: How often what is traced now is called for one sample, once for each time step; `None` if unknown.
        approximate: Whether layers that mix channels may lose some of them.
        cut: For gammas of BatchNormalization (by id), the positions at which channels end, because gamma and beta are
            zero there: what leaves the layer are channels of their own, so that a branch can lose them alone.
    """

    num_channels: int = 0
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    opaque: dict[int, str] = field(default_factory=dict)
    flows: list[np.ndarray] = field(default_factory=list)
    calls: list["Call"] = field(default_factory=list)
    raw: list[int] = field(default_factory=list)
    entries: dict[int, list[int]] = field(default_factory=dict)
    views: dict[int, keras.Model] = field(default_factory=dict)
    config_sizes: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    repeats: int | None = 1
    approximate: bool = False
    cut: Mapping[int, np.ndarray] = field(default_factory=dict)

    def new_channels(self, count: int) -> np.ndarray:
        """Number `count` new channels."""
        self.num_channels += count
        return np.arange(self.num_channels - count, self.num_channels)

    def new_flow(self, channels: np.ndarray) -> int:
        """Number a tensor that carries these channels."""
        self.flows.append(channels)
        return len(self.flows) - 1

    def new_opaque(self, shape: Shape, reason: str) -> np.ndarray:
        """Give a whole tensor, whose channels are not followed, one frozen number."""
        channels = self.new_channels(1)
        self.opaque[int(channels[0])] = reason
        return channels.reshape((1,) * len(shape))

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Make channels that stand at the same place live and die together."""
        first, second = np.broadcast_arrays(first, second)
        different = first != second
        first, second = first[different], second[different]
        if not first.size:
            return
        # An opaque number stands for many channels: it freezes what it meets, and ties none of them together.
        for number in {*self.opaque} & {*first.tolist(), *second.tolist()}:
            self.frozen.append((second[first == number], self.opaque[number]))
            self.frozen.append((first[second == number], self.opaque[number]))
        plain = ~np.isin(first, list(self.opaque)) & ~np.isin(second, list(self.opaque))
        self.ties.append((first[plain], second[plain]))

    def components(self) -> np.ndarray:
        """Return, for every channel number, the smallest number that it is tied to."""
        labels = np.arange(self.num_channels)
        if not self.ties:
            return labels
        first = np.concatenate([tie[0] for tie in self.ties])
        second = np.concatenate([tie[1] for tie in self.ties])
        return connected_components(labels, first, second)


Rule = Callable[["Call"], np.ndarray | list[np.ndarray]]


@dataclass
class Call:
    """One call of a layer, as its rule sees it.

    Attributes:
        layer: The layer that is called.
        node: The call in Keras' graph, with its symbolic tensors.
        inputs: Channel numbers of each input; each array broadcasts to the input's shape without batch.
        input_shapes: The shapes of the inputs, without the batch axis.
        output_shapes: The shapes of the outputs, without the batch axis.
        outputs: Channel numbers of each output, once the rule has run.
        input_flows: The number of each tensor that comes in. A nested model's inner tensors are the outer ones.
        output_flows: The number of each tensor that goes out.
        bindings: The variables that this call bound, in the order in which they act.
        zero_stays_zero: Whether a channel whose inputs and shifts are zero comes out as zero.
        is_product: Whether one zero input is enough to make a channel zero.
        folds_constants: Whether a constant that arrives on a removed channel can be added to the layer's bias: true
            for a layer that multiplies its input by one kernel, whose last axis the bias belongs to.
        constants_vary: Whether a constant that arrives may leave as a number that depends on the position or on the
            size of the input.
        reads: Channels that the call sums up without a kernel: zeros may go, constants may not.
        owner: The layer of the model that this layer works inside of, as in a wrapper; `None` for itself.
        inner: The calls of the layers inside this one.
        repeats: How often it is made for one sample, `None` if unknown.
    """

    layer: keras.layers.Layer
    node: Node
    inputs: list[np.ndarray]
    input_shapes: list[Shape]
    output_shapes: list[Shape]
    _trace: Trace
    outputs: list[np.ndarray] = field(default_factory=list)
    input_flows: list[int] = field(default_factory=list)
    output_flows: list[int] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    zero_stays_zero: bool = True
    is_product: bool = False
    folds_constants: bool = False
    constants_vary: bool = False
    reads: list[np.ndarray] = field(default_factory=list)
    owner: keras.layers.Layer | None = None
    inner: list["Call"] = field(default_factory=list)
    repeats: int | None = 1

    def follow(self, rule: Rule | None, why: str = "") -> None:
        """Set the outputs by a rule; without one, nothing that the layer touches may go, and `why` may say more."""
        if rule is None:
            known = f"no rule for {type(self.layer).__name__} {self.layer.name!r}"
            self.outputs = self.give_up(f"{known}: {why.rstrip('.')}" if why else known)
        else:
            leaving = rule(self)
            self.outputs = leaving if isinstance(leaving, list) else [leaving]

    def enter(self, node: Node, inputs: list[np.ndarray], rule: Rule | None) -> "Call":
        """Follow channels through a layer inside this one; what it binds counts as bound by this layer.

        Args:
            node: The call of the inner layer.
            inputs: The channels that go into it.
            rule: The rule of the inner layer, or `None`.

        Returns:
            The call of the inner layer, with its outputs.
        """
        call = Call(node.operation, node, inputs, node.input_shapes, node.output_shapes, self._trace)
        call.owner, call.bindings, call.reads = self.owner or self.layer, self.bindings, self.reads
        call.follow(rule)
        self.zero_stays_zero &= call.zero_stays_zero
        self.constants_vary |= call.constants_vary
        self.inner.append(call)
        return call

    def along(self, channels: np.ndarray, axis: int, size: int | None = None) -> np.ndarray:
        """Return the channels along one axis, tying those that differ along the other axes.

        Args:
            channels: Channel numbers of a tensor.
            axis: The axis, counted without the batch.
            size: The length of the axis; that of the first input if left out.

        Returns:
            A one-dimensional array as long as the axis.
        """
        rows = np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)
        self._trace.tie(rows[:, :1], rows)
        size = self.input_shapes[0][axis] if size is None else size
        return np.broadcast_to(rows[:, 0], (size,)) if size is not None else rows[:, 0]

    def produce(self, variable: keras.Variable, axis: int, blocks: int = 1, part: str = "") -> np.ndarray:
        """Bind the axis of a kernel along which channels are made, and return their numbers.

        Args:
            variable: The kernel.
            axis: The axis.
            blocks: How many blocks, one after another, hold a slice of every channel, as the gates of an LSTM do.
            part: What the channels are called where the layer makes several kinds.

        Returns:
            One channel number per position in a block.
        """
        size = variable.shape[axis] // blocks
        channels = self.bound(variable, axis)
        channels = self._trace.new_channels(size) if channels is None else channels[:size]
        self.bind(variable, axis, np.tile(channels, blocks), "producer", part=part)
        return channels

    def bound(self, variable: keras.Variable, axis: int) -> np.ndarray | None:
        """Return the channels that an axis of a variable was bound to, or `None`."""
        known = self._trace.bindings.get((id(variable), axis % len(variable.shape)))
        return known.channels if known else None

    def bind(
        self,
        variable: keras.Variable | None,
        axis: int,
        channels: np.ndarray,
        role: Role,
        effect: Effect | None = None,
        part: str = "",
    ) -> None:
        """Say which channel each position on `axis` of `variable` belongs to.

        Args:
            variable: A variable of the layer; `None` is passed over, as in a layer without bias.
            axis: The axis of the variable.
            channels: One channel number per position on the axis.
            role: `"producer"`, `"affine"`, `"statistics"` or `"consumer"`; see `Role`.
            effect: `"scale"` or `"shift"`; see `Effect`.
            part: What the channels are called where the layer makes several kinds.
        """
        if variable is None:
            return
        axis %= len(variable.shape)
        binding = Binding(self.owner or self.layer, variable, axis, role, channels, effect, part)
        known = self._trace.bindings.setdefault((id(variable), axis), binding)
        self._trace.tie(known.channels, channels)
        self.bindings.append(binding)

    def cut(self, channels: np.ndarray) -> np.ndarray:
        """Return channels with new ones at the positions at which they end in this layer."""
        positions = self._trace.cut.get(id(self.layer.gamma), np.zeros(0, int))
        channels = channels.copy()
        channels[positions] = self._trace.new_channels(len(positions))
        return channels

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Make two arrays of channels live and die together, position by position."""
        self._trace.tie(first, second)

    def freeze(self, channels: np.ndarray, reason: str) -> None:
        """Keep these channels, and say why."""
        self._trace.frozen.append((channels.ravel(), reason))

    def mix(self, channels: np.ndarray, reason: str) -> None:
        """Freeze channels whose removal changes the others, unless the user accepts an approximation."""
        if not self._trace.approximate:
            self.freeze(channels, reason)

    def read(self, channels: np.ndarray) -> None:
        """Say that the call sums over these channels, so that only zeros can go."""
        self.reads.append(channels.ravel())

    def opaque(self, reason: str) -> list[np.ndarray]:
        """Return outputs whose channels are not followed, and stay."""
        return [self._trace.new_opaque(shape, reason) for shape in self.output_shapes]

    def same_as_before(self, channels: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Tie the output to that of earlier calls of the same layer, whose config can hold only one size."""
        for earlier in self.earlier():
            if earlier.outputs[0].shape != channels.shape:
                return self.give_up(f"{self.layer.name!r} is called on tensors of different kinds")
            self.tie(earlier.outputs[0], channels)
        return channels

    def earlier(self) -> list["Call"]:
        """Return the calls of the same layer that come before this one."""
        return [call for call in self._trace.calls if call.layer is self.layer]

    def give_up(self, reason: str) -> list[np.ndarray]:
        """Freeze everything that goes in and comes out, and say why."""
        for channels in self.inputs:
            self.freeze(channels, reason)
        if getattr(self.layer, "weights", ()):
            self._trace.unread[self.layer.name] = reason
        return self.opaque(reason)


def connected_components(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest label of each connected component.

    Args:
        labels: The labels 0 .. n-1.
        first: One end of each edge.
        second: The other end of each edge.

    Returns:
        An array like `labels` with every label replaced by the smallest one that it is connected to.

    Example:

    >>> connected_components(np.arange(5), np.array([4, 1]), np.array([1, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    while True:
        low = np.minimum(labels[first], labels[second])
        hooked = labels.copy()
        # Hook the roots of both ends to the smaller root, then let every label jump to its root.
        np.minimum.at(hooked, labels[first], low)
        np.minimum.at(hooked, labels[second], low)
        while not np.array_equal(hooked, hooked[hooked]):
            hooked = hooked[hooked]
        if np.array_equal(hooked, labels):
            return labels
        labels = hooked
