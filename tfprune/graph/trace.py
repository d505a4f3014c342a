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


@dataclass
class Trace:
    """What tracing a model records: bindings of variables, ties between channels, and what is frozen."""

    num_channels: int = 0
    bindings: dict[tuple[int, int], Binding] = field(default_factory=dict)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    frozen: list[tuple[np.ndarray, str]] = field(default_factory=list)
    opaque: dict[int, str] = field(default_factory=dict)

    def new_channels(self, count: int) -> np.ndarray:
        """Number `count` new channels."""
        self.num_channels += count
        return np.arange(self.num_channels - count, self.num_channels)

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
        inputs: Channel numbers of each input; each array broadcasts to the input's shape without batch.
        input_shapes: The shapes of the inputs, without the batch axis.
        output_shapes: The shapes of the outputs, without the batch axis.
    """

    layer: keras.layers.Layer
    inputs: list[np.ndarray]
    input_shapes: list[Shape]
    output_shapes: list[Shape]
    _trace: Trace

    def along(self, channels: np.ndarray, axis: int) -> np.ndarray:
        """Return the channels along one axis, tying those that differ along the other axes.

        Args:
            channels: Channel numbers of the first input, or of an array as long on `axis`.
            axis: The axis, counted without the batch.

        Returns:
            A one-dimensional array as long as the axis.
        """
        rows = np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)
        self._trace.tie(rows[:, :1], rows)
        size = self.input_shapes[0][axis]
        return np.broadcast_to(rows[:, 0], (size,)) if size is not None else rows[:, 0]

    def produce(self, variable: keras.Variable, axis: int) -> np.ndarray:
        """Bind the axis of a kernel along which channels are made, and return their numbers."""
        known = self._trace.bindings.get((id(variable), axis % len(variable.shape)))
        channels = known.channels if known else self._trace.new_channels(variable.shape[axis])
        self.bind(variable, axis, channels, "producer")
        return channels

    def bind(self, variable: keras.Variable | None, axis: int, channels: np.ndarray, role: Role) -> None:
        """Say which channel each position on `axis` of `variable` belongs to.

        Args:
            variable: A variable of the layer; `None` is passed over, as in a layer without bias.
            axis: The axis of the variable.
            channels: One channel number per position on the axis.
            role: `"producer"`, `"affine"`, `"statistics"` or `"consumer"`; see `Role`.
        """
        if variable is None:
            return
        axis %= len(variable.shape)
        known = self._trace.bindings.setdefault(
            (id(variable), axis), Binding(self.layer, variable, axis, role, channels)
        )
        self._trace.tie(known.channels, channels)

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Make two arrays of channels live and die together, position by position."""
        self._trace.tie(first, second)

    def freeze(self, channels: np.ndarray, reason: str) -> None:
        """Keep these channels, and say why."""
        self._trace.frozen.append((channels.ravel(), reason))

    def give_up(self, reason: str) -> list[np.ndarray]:
        """Freeze everything that goes in and comes out, and say why."""
        for channels in self.inputs:
            self.freeze(channels, reason)
        return [self._trace.new_opaque(shape, reason) for shape in self.output_shapes]


Rule = Callable[[Call], np.ndarray]


def trace(model: keras.Model, rules: dict[type, Rule]) -> Trace:
    """Trace every channel of `model`.

    Args:
        model: A built Sequential or functional model.
        rules: For each layer class, the rule that says what the layer does to channels. A layer whose
            class is not among them freezes the channels that it touches.

    Returns:
        The bindings, ties and frozen channels.
    """
    record = Trace()
    graph = functional(model)
    inputs = [record.new_opaque(tuple(tensor.shape[1:]), MODEL_INPUT) for tensor in graph.inputs]
    for channels in _trace_into(graph, inputs, rules, record):
        record.frozen.append((channels.ravel(), MODEL_OUTPUT))
    return record


def _trace_into(
    model: keras.Model, inputs: list[np.ndarray], rules: dict[type, Rule], record: Trace
) -> list[np.ndarray]:
    model = functional(model)
    channels = {id(tensor): array for tensor, array in zip(model.inputs, inputs, strict=True)}
    for node in walk(model):
        arriving = [channels[id(tensor)] for tensor in node.inputs]
        if isinstance(node.operation, keras.Model):
            leaving = _trace_into(node.operation, arriving, rules, record)
        else:
            leaving = _apply_rule(node, arriving, rules, record)
        channels.update((id(tensor), array) for tensor, array in zip(node.outputs, leaving, strict=True))
    return [channels[id(tensor)] for tensor in model.outputs]


def _apply_rule(node: Node, arriving: list[np.ndarray], rules: dict[type, Rule], record: Trace) -> list[np.ndarray]:
    call = Call(node.operation, arriving, node.input_shapes, node.output_shapes, record)
    # The exact class: a subclass may compute something else, and nothing is guessed.
    rule = rules.get(type(node.operation))
    if rule is None:
        return call.give_up(f"no rule for {type(node.operation).__name__} {node.operation.name!r}")
    return [rule(call)]


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
