"""Follow every channel of a model from the weights that make it to the weights that read it.

Each channel gets a number where it is made. A tensor is described by an integer array of such numbers that
broadcasts to the tensor's shape (without the batch axis): a feature map of 16 channels has shape (1, 1, 16).
Layers that move channels then move numbers with plain NumPy (`concatenate`, `reshape`, `repeat`), and two
channels that must live or die together are tied.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import keras
import numpy as np

from tfprune.graph.walk import Node, Shape, functional, walk

Role = Literal["producer", "affine", "statistics", "consumer"]
"""What a variable does to a channel: a kernel slice makes it, affine parameters (bias, gamma, beta, depthwise
kernel) act on it alone, statistics (moving mean and variance) follow it, and a later kernel consumes it."""

Effect = Literal["scale", "shift"]
"""How a variable changes a channel that is constant: a zero scale (gamma, depthwise kernel) makes it zero, a shift
that is not zero (bias, beta) makes zero a constant."""

MODEL_INPUT = "model input"
MODEL_OUTPUT = "model output"


@dataclass(frozen=True)
class Binding:
    """One axis of one variable, and the channel that each position on it belongs to."""

    layer: keras.layers.Layer
    variable: keras.Variable
    axis: int
    role: Role
    channels: np.ndarray
    effect: Effect | None = None


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
        approximate: Whether layers that mix channels may lose some of them.
    """

    num_channels: int = 0
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    opaque: dict[int, str] = field(default_factory=dict)
    flows: list[np.ndarray] = field(default_factory=list)
    calls: list["Call"] = field(default_factory=list)
    approximate: bool = False

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

    def produce(self, variable: keras.Variable, axis: int) -> np.ndarray:
        """Bind the axis of a kernel along which channels are made, and return their numbers."""
        known = self._trace.bindings.get((id(variable), axis % len(variable.shape)))
        channels = known.channels if known else self._trace.new_channels(variable.shape[axis])
        self.bind(variable, axis, channels, "producer")
        return channels

    def bind(
        self,
        variable: keras.Variable | None,
        axis: int,
        channels: np.ndarray,
        role: Role,
        effect: Effect | None = None,
    ) -> None:
        """Say which channel each position on `axis` of `variable` belongs to.

        Args:
            variable: A variable of the layer; `None` is passed over, as in a layer without bias.
            axis: The axis of the variable.
            channels: One channel number per position on the axis.
            role: `"producer"`, `"affine"`, `"statistics"` or `"consumer"`; see `Role`.
            effect: `"scale"` or `"shift"`; see `Effect`.
        """
        if variable is None:
            return
        axis %= len(variable.shape)
        binding = Binding(self.layer, variable, axis, role, channels, effect)
        known = self._trace.bindings.setdefault((id(variable), axis), binding)
        self._trace.tie(known.channels, channels)
        self.bindings.append(binding)

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

    def give_up(self, reason: str) -> list[np.ndarray]:
        """Freeze everything that goes in and comes out, and say why."""
        for channels in self.inputs:
            self.freeze(channels, reason)
        return [self._trace.new_opaque(shape, reason) for shape in self.output_shapes]


Rule = Callable[[Call], np.ndarray | list[np.ndarray]]
FindRule = Callable[[keras.Operation], Rule | None]


def trace(model: keras.Model, find_rule: FindRule, approximate: bool = False) -> Trace:
    """Trace every channel of `model`.

    Args:
        model: A built Sequential or functional model.
        find_rule: Gives the rule that says what a layer does to channels. A layer for which it gives `None`
            freezes the channels that it touches.
        approximate: Whether layers that mix channels may lose some of them all the same.

    Returns:
        The calls, bindings, ties and frozen channels.
    """
    record = Trace(approximate=approximate)
    graph = functional(model)
    inputs = [record.new_opaque(tuple(tensor.shape[1:]), MODEL_INPUT) for tensor in graph.inputs]
    for flow in _trace_into(graph, [record.new_flow(channels) for channels in inputs], find_rule, record):
        record.frozen.append((record.flows[flow].ravel(), MODEL_OUTPUT))
    return record


def _trace_into(model: keras.Model, inputs: list[int], find_rule: FindRule, record: Trace) -> list[int]:
    model = functional(model)
    flows = {id(tensor): flow for tensor, flow in zip(model.inputs, inputs, strict=True)}
    for node in walk(model):
        arriving = [flows[id(tensor)] for tensor in node.inputs]
        if isinstance(node.operation, keras.Model):
            leaving = _trace_into(node.operation, arriving, find_rule, record)
        else:
            leaving = _apply_rule(node, arriving, find_rule, record)
        flows.update((id(tensor), flow) for tensor, flow in zip(node.outputs, leaving, strict=True))
    return [flows[id(tensor)] for tensor in model.outputs]


def _apply_rule(node: Node, arriving: list[int], find_rule: FindRule, record: Trace) -> list[int]:
    channels = [record.flows[flow] for flow in arriving]
    call = Call(node.operation, node, channels, node.input_shapes, node.output_shapes, record, input_flows=arriving)
    rule = find_rule(node.operation)
    if rule is None:
        call.outputs = call.give_up(f"no rule for {type(node.operation).__name__} {node.operation.name!r}")
    else:
        leaving = rule(call)
        call.outputs = leaving if isinstance(leaving, list) else [leaving]
    call.output_flows = [record.new_flow(channels) for channels in call.outputs]
    record.calls.append(call)
    return call.output_flows


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
