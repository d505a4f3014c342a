"""What the channels carry: their mean, spread and share of zeros, as readers see them."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.places import Place, places_of
from tfprune.statistics.taps import Taps


class Activations(Collector):
    """Gathers what channels carry where they are read, behind normalization and activation.

    Attributes:
        num_rows: How many numbers it holds for each position on the axes of the channels at a place.
    """

    of = "channels"
    num_rows: ClassVar[int] = 2

    def __init__(self, subject: Subject) -> None:
        self._sizes = {name: group.size for name, group in subject.groups.items()}
        self._places = {name: places_of(subject.analysis, group) for name, group in subject.groups.items()}
        self._sums = {
            name: [tf.Variable(tf.zeros((self.num_rows, len(self.channels(place))))) for place in places]
            for name, places in self._places.items()
        }

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers that read channels."""
        return [place.layer for places in self._places.values() for place in places]

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add what passes."""
        for name, places in self._places.items():
            for place, sums in zip(places, self._sums[name], strict=True):
                for tensor in place.tensors(taps):
                    sums.assign(self.joined(place, tf.cast(tensor, tf.float32), sums))

    def channels(self, place: Place) -> np.ndarray:
        """Return the channel of each position for which numbers are held."""
        return place.channels

    @abstractmethod
    def joined(self, place: Place, tensor: Any, rows: Any) -> Any:
        """Return the rows at a place with those of one more tensor."""

    @abstractmethod
    def means(self, rows: np.ndarray, channels: np.ndarray, size: int) -> Sequence[np.ndarray]:
        """Return for each of `names` the statistic of a group.

        Args:
            rows: The rows of all positions at all places, in float64.
            channels: For each position the channel.
            size: How many channels there are.
        """

    def result(self, num_samples: int) -> dict[str, dict[str, np.ndarray]]:
        """Return the statistics."""
        found: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.names}
        for group, places in self._places.items():
            rows = np.concatenate([sums.numpy() for sums in self._sums[group]], 1).astype(np.float64)
            channels = np.concatenate([self.channels(place) for place in places])
            inside = channels < self._sizes[group]
            means = self.means(rows[:, inside], channels[inside], self._sizes[group])
            for name, mean in zip(self.names, means, strict=True):
                found[name][group] = mean.astype(np.float32)
        return found


class ActivationMoments(Activations):
    """Gathers the mean and the variance over samples, positions and readers.

    Batches are merged by their means, as little would be left in float32 of the difference of two sums of squares.

    Reference: Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """

    names = ("activation_mean", "activation_variance")
    num_rows = 3

    def joined(self, place: Place, tensor: Any, rows: Any) -> Any:
        """Merge counts, means and sums of squared deviations."""
        means, variances = (tf.reshape(each, (-1,)) for each in tf.nn.moments(tensor, _others(place, tensor)))
        count, mean, deviations = tf.unstack(rows)
        size = _count(place, tensor)
        total, apart = count + size, means - mean
        deviations += variances * size + apart**2 * count * size / total
        return tf.stack([total, mean + apart * size / total, deviations])

    def means(self, rows: np.ndarray, channels: np.ndarray, size: int) -> Sequence[np.ndarray]:
        """Merge positions and places in the same way."""
        count, mean, deviations = rows
        counts = np.maximum(np.bincount(channels, count, size), 1)
        means = np.bincount(channels, count * mean, size) / counts
        spread = np.bincount(channels, deviations + count * (mean - means[channels]) ** 2, size)
        return means, spread / counts


class ActivationZeros(Activations):
    """Gathers the share of exact zeros over samples, positions and readers."""

    names = ("activation_zeros",)

    def joined(self, place: Place, tensor: Any, rows: Any) -> Any:
        """Count."""
        zeros = tf.reduce_sum(tf.cast(tensor == 0, tf.float32), _others(place, tensor))
        zeros = tf.reshape(zeros, (-1,))
        return rows + tf.stack([_count(place, tensor) * tf.ones_like(zeros), zeros])

    def means(self, rows: np.ndarray, channels: np.ndarray, size: int) -> Sequence[np.ndarray]:
        """Divide."""
        return _quotients(rows, channels, size)


class ActivationMagnitudes(Activations):
    """Gathers the mean over samples and readers of the absolute mean over the positions of a channel."""

    names = ("activation_magnitude",)

    def channels(self, place: Place) -> np.ndarray:
        """Return the channels: positions are joined before means are made positive."""
        return np.arange(place.size)

    def joined(self, place: Place, tensor: Any, rows: Any) -> Any:
        """Add up, and count samples where there are such channels."""
        positions = np.bincount(place.channels, minlength=place.size + 1)[:-1]
        num_samples = tf.cast(tf.shape(tensor)[0], tf.float32)
        each = np.maximum(positions, 1) * _count(place, tensor) / num_samples
        total = tf.reduce_sum(tf.abs(place.per_channel(tensor)), 0) / each
        return rows + tf.stack([num_samples * (positions > 0), total])

    def means(self, rows: np.ndarray, channels: np.ndarray, size: int) -> Sequence[np.ndarray]:
        """Divide."""
        return _quotients(rows, channels, size)


def _quotients(rows: np.ndarray, channels: np.ndarray, size: int) -> tuple[np.ndarray]:
    counts, sums = (np.bincount(channels, row, size) for row in rows)
    return (sums / np.maximum(counts, 1),)


def _others(place: Place, tensor: Any) -> list[int]:
    """The axes along which the channels do not lie, that of the samples among them."""
    rank = len(tensor.shape)
    return [axis for axis in range(rank) if axis - rank not in place.axes]


def _count(place: Place, tensor: Any) -> Any:
    """How many numbers there are for each position on the axes of the channels."""
    return tf.cast(tf.size(tensor) / len(place.channels), tf.float32)
