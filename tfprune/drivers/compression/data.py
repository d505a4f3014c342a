"""The data that `compress` trains and validates on: what forms it has, how it is split, and in which order it comes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Batch, Reader, inputs_of
from tfprune.data.inputs import Samples, check_finite
from tfprune.exporting.calibration import gather_samples
from tfprune.exporting.inputs import check_model

VALIDATION_SHARE = 0.1
"""How much of arrays is set aside when no validation data is given."""

_NUM_SAMPLES = 500  # for calibration


@dataclass(frozen=True)
class Data:
    """What to train on and what to measure on, each a dataset of batches or a tuple `(x, y)` or `(x, y, weights)`.

    Attributes:
        training: For `fit` and calibration.
        validation: For measuring only.
        split: Whether the validation data was set aside from the training data here.
    """

    training: Any
    validation: Any
    split: bool

    def samples(self, model: keras.Model) -> Samples:
        """Return some hundred training inputs by the names that they have in a model."""
        return gather_samples(self.training, check_model(model), _NUM_SAMPLES)

    def first(self, model: keras.Model) -> Batch:
        """Return one batch of the training data, packed for a model."""
        return next(iter(read(self.training, model, "data")))

    def describe(self) -> str:
        """Return one sentence on the validation data."""
        if not self.split:
            return "validation data as given"
        return f"{VALIDATION_SHARE:.0%} of the data, set aside here; the dense model may have been trained on it"

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these data from others: of arrays all, of datasets their form and length."""
        return {"data": _fingerprint(self.training), "validation": _fingerprint(self.validation)}


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
        return keras.tree.lists_to_tuples(_packed(self._data.rows(rows)))  # TensorFlow would stack a list


def prepare(model: keras.Model, data: Any, validation: Any, seed: int) -> Data:
    """Return checked data, a part of it set aside if there is no validation data.

    Args:
        model: What is to be trained on it.
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches
            of these with a known length.
        validation: The same, or None.
        seed: For the split of arrays.

    Returns:
        The data.

    Raises:
        TypeError: If one of them has another form.
        ValueError: If a dataset's length is not known, there is too little, it does not fit the model, or holds NaN.
    """
    data = _check("data", data, model)
    if validation is not None:
        return Data(data, _check("validation", validation, model), split=False)
    if not isinstance(data, tuple):
        raise ValueError(
            "A dataset cannot be split by itself. Pass data and validation apart: dataset.skip(10), dataset.take(10)."
        )
    arrays = Batch(*data)
    order = np.random.default_rng(seed).permutation(arrays.num_samples)
    num_validation = int(len(order) * VALIDATION_SHARE)
    if not num_validation:
        raise ValueError(f"Of {len(order)} samples none can be set aside for validation. Pass validation=(x, y).")
    training, validation = arrays.rows(order[num_validation:]), arrays.rows(order[:num_validation])
    return Data(_packed(training), _packed(validation), split=True)


def read(data: Any, model: keras.Model, argument: str) -> Reader:
    """Return a reader of batches with labels for a model."""
    return Reader(data, inputs_of(check_model(model)), argument=argument, needs_labels=True)


def num_batches(training: Any, batch_size: int) -> int:
    """Return how many batches an epoch has."""
    if isinstance(training, tuple):
        return -(-Batch(*training).num_samples // batch_size)
    if isinstance(training, keras.utils.PyDataset):
        return int(training.num_batches)
    return int(training.cardinality())


def _check(name: str, data: Any, model: keras.Model) -> Any:
    if isinstance(data, keras.utils.PyDataset | tf.data.Dataset):
        known = data.num_batches is not None if isinstance(data, keras.utils.PyDataset) else data.cardinality() >= 0
        if not known:
            raise ValueError(
                f"The length of {name} is not known or endless, so no learning rate can be planned. Use "
                "take(num_batches), or data.apply(tf.data.experimental.assert_cardinality(num_batches))."
            )
        _check_labels(name, next(iter(read(data, model, name))))  # raises if it is empty or not batched
        return data
    if isinstance(data, Iterable) and not isinstance(data, tuple | Mapping | str) and not hasattr(data, "__array__"):
        raise TypeError(
            f"{name} must be arrays (x, y), or a tf.data.Dataset or keras.utils.PyDataset of batches (x, y) that can "
            f"be read again and again. Received: {type(data).__name__}."
        )
    arrays = read(data, model, name).arrays
    assert arrays is not None
    _check_labels(name, arrays)
    return _packed(arrays)


def _check_labels(name: str, batch: Batch) -> None:
    for array in keras.tree.flatten(batch.y):
        check_finite(array, name, "y")


def _packed(batch: Batch) -> tuple[Any, ...]:
    """Return `(x, y)` or `(x, y, sample_weight)`."""
    return tuple(batch) if batch.sample_weight is not None else tuple(batch[:2])


def _fingerprint(data: Any) -> dict[str, Any]:
    if isinstance(data, tuple):
        arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
        return {"samples": len(arrays[0]), "sha256": digest(arrays)}
    return {"batches": num_batches(data, 1), "form": str(getattr(data, "element_spec", type(data).__name__))}


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of arrays: their shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data if array.dtype.kind in "fiub" else array.tobytes())
    return found.hexdigest()
