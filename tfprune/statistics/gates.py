"""What the loss would change if a channel were multiplied by something else than 1: gradients of gates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph import Analysis, ChannelGroup
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.taps import Taps


@dataclass(frozen=True)
class Gate:
    """Where a layer's output carries the channels of a group.

    Attributes:
        layer: The layer.
        axes: The axes of its output, counted from the end, along which the channels lie.
        channels: For each position on these axes, flattened, the channel of the group; the group's size for others.
    """

    layer: keras.layers.Layer
    axes: tuple[int, ...]
    channels: np.ndarray


def gates_of(analysis: Analysis, group: ChannelGroup) -> list[Gate]:
    """Return where the channels of a group can be multiplied so that all of them is: behind normalization, else behind
    the layers that make them.

    Args:
        analysis: The analysis of the model.
        group: One of its groups.

    Returns:
        The gates; none if the channels come out of no layer, as those inside an attention layer.
    """
    norms = [member.layer for member in group.with_role("statistics")]
    layers = {id(layer): layer for layer in norms or [member.layer for member in group.producers]}
    calls: dict[int, Call] = {}
    for call in analysis.trace.calls:
        for each in (call, *call.inner):
            if id(each.layer) in layers and each.outputs:
                calls.setdefault(id(each.layer), each)
    found = [_gate(layers[key], call.outputs[0], analysis, group) for key, call in calls.items()]
    return [gate for gate in found if gate is not None]


def _gate(layer: keras.layers.Layer, channels: np.ndarray, analysis: Analysis, group: ChannelGroup) -> Gate | None:
    roots = analysis.labels[channels]
    axes = tuple(varying_axes(channels))
    flat = roots[tuple(slice(None) if axis - roots.ndim in axes else 0 for axis in range(roots.ndim))].ravel()
    places = np.searchsorted(group.labels, flat)
    known = np.take(group.labels, np.minimum(places, group.size - 1)) == flat
    return Gate(layer, axes, np.where(known, places, group.size)) if known.any() else None


class GateGradients(Collector):
    """Gathers how the loss depends on a gate on each channel: its mean over the samples, and the mean of its squares.

    The gradient of a gate z that multiplies a channel y, at z = 1, is the sum of y dL/dy over all positions. Where
    several layers make a channel, as before an addition, their gates are one, so that gradients are added before they
    are squared. The squares are those of single samples.

    Reference: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021,
    https://arxiv.org/abs/2108.00708
    """

    names = ("gate_gradient", "gate_gradient_squared")
    of = "channels"

    def __init__(self, subject: Subject) -> None:
        self._sizes = {name: group.size for name, group in subject.groups.items()}
        found = {name: gates_of(subject.analysis, group) for name, group in subject.groups.items()}
        self._gates = {name: gates for name, gates in found.items() if gates}
        self._sums = {name: tf.Variable(tf.zeros((2, self._sizes[name]))) for name in self._gates}

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers with a gate."""
        return [gate.layer for gates in self._gates.values() for gate in gates]

    def sources(self, taps: Taps) -> list[Any]:
        """Return the outputs of these layers."""
        return [tensor for gates in self._gates.values() for gate in gates for tensor in _outputs(gate, taps)]

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the gradients of the gates, and their squares."""
        left = iter(gradients)
        for name, gates in self._gates.items():
            size = self._sizes[name]
            total: Any = 0.0
            for gate in gates:
                for tensor in _outputs(gate, taps):
                    gradient = next(left)
                    if gradient is not None:
                        total += _per_channel(tensor, gradient, gate, size)
            if not isinstance(total, float):
                self._sums[name].assign_add(tf.stack([tf.reduce_sum(total, 0), tf.reduce_sum(total**2, 0)]))

    def result(self, num_samples: int) -> dict[str, dict[str, np.ndarray]]:
        """Return the means."""
        means = {name: total.numpy() / num_samples for name, total in self._sums.items()}
        return {
            statistic: {name: each[row] for name, each in means.items()} for row, statistic in enumerate(self.names)
        }


def _outputs(gate: Gate, taps: Taps) -> list[Any]:
    return [call.outputs[0] for call in taps.of(gate.layer)]


def _per_channel(tensor: Any, gradient: Any, gate: Gate, size: int) -> Any:
    """Sum y dL/dy over the positions of each channel: shape (samples, channels)."""
    product = tf.cast(tensor, tf.float32) * tf.cast(gradient, tf.float32)
    rank = len(product.shape)
    others = [axis for axis in range(1, rank) if axis - rank not in gate.axes]
    product = tf.reshape(tf.reduce_sum(product, others), (-1, len(gate.channels)))
    if np.array_equal(gate.channels, np.arange(size)):
        return product
    return tf.transpose(tf.math.unsorted_segment_sum(tf.transpose(product), gate.channels, size + 1)[:size])
