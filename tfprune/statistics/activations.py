"""What the channels carry: their mean, spread and share of zeros, as readers see them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.places import Place, places_of
from tfprune.statistics.taps import Taps


class Activations(Collector):
    """Gathers what channels carry where they are read, behind normalization and activation.

    `activation_mean`, `activation_variance` and `activation_zeros` (the share of exact zeros) are over samples,
    positions and readers; `activation_magnitude` is the mean over samples and readers of the absolute mean over
    positions.
    """

    names = ("activation_magnitude", "activation_mean", "activation_variance", "activation_zeros")
    of = "channels"

    def __init__(self, subject: Subject) -> None:
        self._moments = {
            name: [_Moments(place) for place in places_of(subject.analysis, group)]
            for name, group in subject.groups.items()
        }

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers that read channels."""
        return [each.place.layer for moments in self._moments.values() for each in moments]

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add what passes."""
        for moments in self._moments.values():
            for each in moments:
                for tensor in each.place.tensors(taps):
                    each.add(tf.cast(tensor, tf.float32))

    def result(self, num_samples: int) -> dict[str, dict[str, np.ndarray]]:
        """Return the means."""
        joined = {name: _joined(moments) for name, moments in self._moments.items()}
        return {name: {group: each[name] for group, each in joined.items()} for name in self.names}


class _Moments:
    """What passes one place: for each position on the axes of the channels the count, mean, squared deviations, zeros.

    Batches are merged by their means, as little would be left in float32 of the difference of two sums of squares.

    Reference: Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.seen = tf.Variable(tf.zeros((4, len(place.channels))))
        self.magnitudes = tf.Variable(tf.zeros(place.size))
        self.num_samples = tf.Variable(0.0)
        self._positions = np.maximum(np.bincount(place.channels, minlength=place.size + 1)[:-1], 1)

    def add(self, tensor: Any) -> None:
        rank = len(tensor.shape)
        others = [axis for axis in range(rank) if axis - rank not in self.place.axes]
        size = tf.cast(tf.size(tensor) / len(self.place.channels), tf.float32)
        means, variances, zeros = (
            tf.reshape(each, (-1,))
            for each in (*tf.nn.moments(tensor, others), tf.math.count_nonzero(tensor == 0, others, dtype=tf.float32))
        )
        count, mean, deviations, before = tf.unstack(self.seen)
        total, apart = count + size, means - mean
        deviations += variances * size + apart**2 * count * size / total
        self.seen.assign(tf.stack([total, mean + apart * size / total, deviations, before + zeros]))
        num_samples = tf.cast(tf.shape(tensor)[0], tf.float32)
        averages = self.place.per_channel(tensor) / (self._positions * size / num_samples)
        self.magnitudes.assign_add(tf.reduce_sum(tf.abs(averages), 0))
        self.num_samples.assign_add(num_samples)


def _joined(moments: Sequence[_Moments]) -> dict[str, np.ndarray]:
    """The statistics of a group, over all places and positions of each channel."""
    places = np.concatenate([each.place.channels for each in moments])
    count, mean, deviations, zeros = np.concatenate([each.seen.numpy() for each in moments], 1).astype(np.float64)

    def total(numbers: np.ndarray) -> np.ndarray:
        return np.bincount(places, numbers, moments[0].place.size + 1)[: moments[0].place.size]

    counts = np.maximum(total(count), 1)
    means = total(count * mean) / counts
    apart = mean - np.append(means, 0.0)[places]
    num_samples = max(sum(float(each.num_samples.numpy()) for each in moments), 1)
    return {
        "activation_magnitude": sum(each.magnitudes.numpy() for each in moments) / num_samples,
        "activation_mean": means.astype(np.float32),
        "activation_variance": (total(deviations + count * apart**2) / counts).astype(np.float32),
        "activation_zeros": (total(zeros) / counts).astype(np.float32),
    }
