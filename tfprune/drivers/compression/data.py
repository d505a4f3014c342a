"""The data that `compress` trains and validates on: what forms it has, how it is split, and in which order it comes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.exporting.inputs import Samples
from tfprune.measure.entries import KerasEntry
from tfprune.measure.samples import Batch, batches

VALIDATION_SHARE = 0.1
"""How much of arrays is set aside when no validation data is given."""

_NUM_SAMPLES = 500  # for calibration


@dataclass(frozen=True)
class Data:
    """What to train on and what to measure on, each arrays `(x, y)` or a dataset of batches.

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
        entry = KerasEntry("model", model)
        parts = [entry.samples(x) for x, _ in batches(self.training, _NUM_SAMPLES)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def first(self) -> Batch:
        """Return one batch `(x, y)` of the training data."""
        return next(batches(self.training, None))

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
        data: Arrays `(x, y)`; `x` may be a dict.
        batch_size: Samples per batch.
        seed: For the order.
    """

    def __init__(self, data: tuple[Any, Any], batch_size: int, seed: int) -> None:
        super().__init__()
        self._data, self._batch_size, self._seed = data, batch_size, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self._order = np.random.default_rng([self._seed, epoch]).permutation(_count(self._data))

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return _take(self._data, self._order[index * self._batch_size : (index + 1) * self._batch_size])


def prepare(data: Any, validation: Any, seed: int) -> Data:
    """Return checked data, a part of it set aside if there is no validation data.

    Args:
        data: Arrays `(x, y)`, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches with a known length.
        validation: The same, or None.
        seed: For the split of arrays.

    Returns:
        The data.

    Raises:
        TypeError: If one of them has another form.
        ValueError: If a dataset's length is not known, there is too little, or it holds NaN.
    """
    data = _check("data", data)
    if validation is not None:
        return Data(data, _check("validation", validation), split=False)
    if not isinstance(data, tuple):
        raise ValueError(
            "A dataset cannot be split by itself. Pass data and validation apart: dataset.skip(10), dataset.take(10)."
        )
    order = np.random.default_rng(seed).permutation(_count(data))
    num_validation = int(len(order) * VALIDATION_SHARE)
    if not num_validation:
        raise ValueError(f"Of {len(order)} samples none can be set aside for validation. Pass validation=(x, y).")
    return Data(_take(data, order[num_validation:]), _take(data, order[:num_validation]), split=True)


def num_batches(training: Any, batch_size: int) -> int:
    """Return how many batches an epoch has."""
    if isinstance(training, tuple):
        return -(-_count(training) // batch_size)
    if isinstance(training, keras.utils.PyDataset):
        return int(training.num_batches)
    return int(training.cardinality())


def _check(name: str, data: Any) -> Any:
    if isinstance(data, tuple | list) and len(data) == 2:
        return _check_arrays(name, data)
    if isinstance(data, keras.utils.PyDataset):
        known = data.num_batches is not None
    elif isinstance(data, tf.data.Dataset):
        known = data.cardinality() >= 0
    else:
        raise TypeError(
            f"{name} must be a tuple (x, y) of arrays, or a tf.data.Dataset or keras.utils.PyDataset of batches (x, y) "
            f"that can be read again and again. Received: {type(data).__name__}."
        )
    if not known:
        raise ValueError(
            f"The length of {name} is not known or endless, so no learning rate can be planned. Use take(num_batches), "
            "or data.apply(tf.data.experimental.assert_cardinality(num_batches))."
        )
    _check_finite(name, next(batches(data, 1)))  # raises if it is empty or not batched
    return data


def _check_arrays(name: str, data: Any) -> tuple[Any, np.ndarray]:
    x, y = data
    arrays = (keras.tree.map_structure(np.asarray, x), np.asarray(y))
    next(batches(arrays, 1))  # raises if they are empty, or differ in length
    _check_finite(name, arrays)
    return arrays


def _check_finite(name: str, arrays: Any) -> None:
    for array in keras.tree.flatten(arrays):
        array = np.asarray(array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values. Remove them, or the training learns nothing.")


def _count(data: tuple[Any, Any]) -> int:
    return len(data[1])


def _take(data: tuple[Any, Any], rows: np.ndarray) -> tuple[Any, Any]:
    x, y = keras.tree.map_structure(lambda array: array[rows], data)
    return x, y


def _fingerprint(data: Any) -> dict[str, Any]:
    if isinstance(data, tuple):
        return {"samples": _count(data), "sha256": digest(np.asarray(array) for array in keras.tree.flatten(data))}
    return {"batches": num_batches(data, 1), "form": str(getattr(data, "element_spec", type(data).__name__))}


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a hash of arrays: their shapes, dtypes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).data if array.dtype.kind in "fiub" else array.tobytes())
    return found.hexdigest()
