"""What the loss would change if a channel were multiplied by something else than 1: gradients of gates."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.places import places_of
from tfprune.statistics.taps import Taps


class GateGradients(Collector):
    """Gathers how the loss depends on a gate on each channel: its mean over the samples, and the mean of its squares.

    The gradient of a gate z that multiplies a channel x wherever it is read, at z = 1, is the sum of x dL/dx over all
    positions and readers. Readers are added before numbers are squared. The squares are those of single samples.

    Reference: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021,
    https://arxiv.org/abs/2108.00708
    """

    names = ("gate_gradient", "gate_gradient_squared")
    of = "channels"

    def __init__(self, subject: Subject) -> None:
        self._gates = {name: places_of(subject.analysis, group) for name, group in subject.groups.items()}
        self._sums = {name: tf.Variable(tf.zeros((2, group.size))) for name, group in subject.groups.items()}

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers with a gate."""
        return [gate.layer for gates in self._gates.values() for gate in gates]

    def sources(self, taps: Taps) -> list[Any]:
        """Return what the gates multiply."""
        return [tensor for gates in self._gates.values() for gate in gates for tensor in gate.tensors(taps)]

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the gradients of the gates, and their squares."""
        left = iter(gradients)
        for name, gates in self._gates.items():
            products = [
                gate.per_channel(tf.cast(tensor, tf.float32) * tf.cast(gradient, tf.float32))
                for gate in gates
                for tensor in gate.tensors(taps)
                if (gradient := next(left)) is not None
            ]
            if products:
                total = tf.add_n(products)
                self._sums[name].assign_add(tf.stack([tf.reduce_sum(total, 0), tf.reduce_sum(total**2, 0)]))

    def result(self, num_samples: int) -> dict[str, dict[str, np.ndarray]]:
        """Return the means."""
        means = {name: total.numpy() / num_samples for name, total in self._sums.items()}
        return {
            statistic: {name: each[row] for name, each in means.items()} for row, statistic in enumerate(self.names)
        }
