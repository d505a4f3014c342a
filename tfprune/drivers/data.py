"""The data that a longer work trains and validates on: what forms it has, and how it is split."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Batch, Reader, inputs_of
from tfprune.data.inputs import Samples, check_finite
from tfprune.drivers.batches import num_batches, packed
from tfprune.drivers.fingerprints import data_fingerprint
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
        answered: Whether there were no labels, so that what the dense model answers stands for them.
    """

    training: Any
    validation: Any
    split: bool
    answered: bool = False

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
        part = f"{VALIDATION_SHARE:.0%} of the data, set aside here"
        if self.answered:
            return f"{part}, without labels: on the dense model's own answers"
        return f"{part}; the dense model may have been trained on it"

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells these data from others: of arrays all, of datasets their form and length."""
        return {"data": data_fingerprint(self.training), "validation": data_fingerprint(self.validation)}


def prepare(model: keras.Model, data: Any, validation: Any, seed: int) -> Data:
    """Return checked data, a part of it set aside if there is no validation data.

    Args:
        model: What is to be trained on it.
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches
            of these with a known length.
        validation: The same with labels, or None.
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
    return Data(packed(training), packed(validation), split=True)


def read(data: Any, model: keras.Model, argument: str) -> Reader:
    """Return a reader of batches with labels for a model."""
    return Reader(data, inputs_of(check_model(model)), argument=argument, needs_labels=True)


def _check(name: str, data: Any, model: keras.Model) -> Any:
    if isinstance(data, keras.utils.PyDataset | tf.data.Dataset):
        if num_batches(data, 1) is None:
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
    return packed(arrays)


def _check_labels(name: str, batch: Batch) -> None:
    for array in keras.tree.flatten(batch.y):
        check_finite(array, name, "y")
