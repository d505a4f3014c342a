"""In which order samples come, and how many batches there are."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Batch


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in an order that depends on the seed and the epoch alone, so that a `fit` can go on midway.

    Args:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`.
        batch_size: Samples per batch.
        seed: For the order.
    """

    def __init__(self, data: tuple[Any, ...], batch_size: int, seed: int) -> None:
        super().__init__()
        self._data, self._batch_size, self._seed = Batch(*data), batch_size, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self._order = np.random.default_rng([self._seed, epoch]).permutation(self._data.num_samples)

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        found: tuple[Any, ...] = keras.tree.lists_to_tuples(packed(self._data.rows(rows)))  # or TensorFlow stacks them
        return found


class _Window(keras.utils.PyDataset):
    """Some batches, one after the other, of an epoch of others."""

    def __init__(self, batches: ShuffledBatches, first: int, last: int) -> None:
        super().__init__()
        self._batches, self._first, self._last = batches, first, last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._batches[self._first + index]


def window(batches: ShuffledBatches | tf.data.Dataset, first: int, last: int) -> Any:
    """Return a part of an epoch.

    Args:
        batches: All batches of an epoch.
        first: The first batch of the part, counted from 0.
        last: The first batch behind it.

    Returns:
        A dataset of `last - first` batches.
    """
    if isinstance(batches, ShuffledBatches):
        return _Window(batches, first, last)
    return batches.skip(first).take(last - first)


def packed(batch: Batch) -> tuple[Any, ...]:
    """Return `(x, y)` or `(x, y, sample_weight)`."""
    return tuple(batch) if batch.sample_weight is not None else tuple(batch[:2])


def num_batches(data: Any, batch_size: int) -> int | None:
    """Return how many batches an epoch has.

    Args:
        data: Arrays in a tuple, a `tf.data.Dataset` or a `keras.utils.PyDataset`.
        batch_size: Samples per batch, for arrays.

    Returns:
        The number; None if it is not known, or endless.
    """
    if isinstance(data, tuple):
        return -(-Batch(*data).num_samples // batch_size)
    if isinstance(data, keras.utils.PyDataset):
        return None if data.num_batches is None else int(data.num_batches)
    if isinstance(data, tf.data.Dataset) and data.cardinality() >= 0:
        return int(data.cardinality())
    return None
