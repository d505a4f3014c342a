"""What `compare` measures on the data: accuracy, or a metric of the user's."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from tfprune.data import Batch

Metric: TypeAlias = keras.metrics.Metric | Callable[[np.ndarray, np.ndarray], Any]


class Score(ABC):
    """What one entry is worth: fed with batches, asked once.

    Attributes:
        name: What is measured.
    """

    name: str

    @abstractmethod
    def check(self, batch: Batch) -> None:
        """Raise if these labels or weights cannot be measured with."""

    @abstractmethod
    def add(self, batch: Batch, outputs: np.ndarray) -> None:
        """Take in the labels of a batch, and what the entry answers."""

    @abstractmethod
    def result(self) -> float:
        """Return the score of all batches."""


class Accuracy(Score):
    """The fraction of samples whose largest output is the label's; a sample with NaN among its outputs is wrong.

    With sample weights it is the fraction of the weights, as that of `weighted_metrics` in `evaluate`.
    """

    name = "accuracy"

    def __init__(self, output: tuple[int | None, ...]) -> None:
        if len(output) != 1 or output[0] == 1:
            raise ValueError(
                f"Accuracy is of outputs with a number for each class. Received: models whose output for a sample has "
                f"the shape {output}. Pass metric=, such as keras.metrics.BinaryAccuracy() or MeanAbsoluteError()."
            )
        self._num_classes = output[0]
        self._hits = self._total = 0.0

    def check(self, batch: Batch) -> None:
        """Raise if the batch does not have labels of these classes, and one weight for each sample or none."""
        class_labels(labels_of(batch), self._num_classes)
        _weights(batch)

    def add(self, batch: Batch, outputs: np.ndarray) -> None:
        """Sum the weights of the hits."""
        labels, weights = class_labels(labels_of(batch), self._num_classes), _weights(batch)
        hits = (outputs.argmax(axis=-1) == labels) & ~np.isnan(outputs).any(axis=-1)
        self._hits += float(weights[hits].sum())
        self._total += float(weights.sum())

    def result(self) -> float:
        """Return the fraction."""
        if not self._total:
            raise ValueError(
                "The sample weights sum to 0, so there is nothing to measure. Leave them out, or mend them."
            )
        return self._hits / self._total


class MetricScore(Score):
    """The number that a metric of the user's gives for all samples; outputs are kept until then."""

    def __init__(self, metric: Metric) -> None:
        if isinstance(metric, type) or not (isinstance(metric, keras.metrics.Metric) or callable(metric)):
            raise TypeError(
                "metric must be a keras.metrics.Metric instance, or a function of y_true and y_pred that returns a "
                f"number. Received: {metric!r}."
            )
        self.name = str(getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__))
        self._metric = metric
        self._parts: list[tuple[np.ndarray, ...]] = []

    def check(self, batch: Batch) -> None:
        """Raise if there are weights that a function does not take; what labels mean is the metric's business."""
        labels_of(batch)
        if batch.sample_weight is not None and not self._takes_weights():
            raise ValueError(
                f"The data has sample weights, and the metric {self.name!r} takes none. Give it an argument "
                "sample_weight, pass a keras.metrics.Metric, or leave the weights out: (x, y)."
            )

    def add(self, batch: Batch, outputs: np.ndarray) -> None:
        """Keep the batch."""
        weights = () if batch.sample_weight is None else (batch.sample_weight,)
        self._parts.append((labels_of(batch), outputs, *weights))

    def result(self) -> float:
        """Return the metric's number."""
        value = np.asarray(self._measure())
        if value.size != 1 or value.dtype.kind not in "fiub":
            raise ValueError(
                f"The metric {self.name!r} must return one number. Received: {value.dtype} of shape "
                f"{value.shape}. Take the mean, or another sum of it."
            )
        return float(value.item())

    def _measure(self) -> Any:
        if not isinstance(self._metric, keras.metrics.Metric):
            y, outputs, *weights = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
            return self._metric(y, outputs, **({"sample_weight": weights[0]} if weights else {}))
        self._metric.reset_state()
        for part in self._parts:
            self._metric.update_state(*part)
        value = keras.ops.convert_to_numpy(self._metric.result())
        self._metric.reset_state()
        return value

    def _takes_weights(self) -> bool:
        if isinstance(self._metric, keras.metrics.Metric):
            return True
        taken = inspect.signature(self._metric).parameters.values()
        return any(each.name == "sample_weight" or each.kind is each.VAR_KEYWORD for each in taken)


def make_score(metric: Metric | None, output: tuple[int | None, ...]) -> Score:
    """Return a fresh score for one entry.

    Args:
        metric: What the user asked for; None for accuracy.
        output: Shape of the entry's output for one sample.

    Returns:
        The score.

    Raises:
        TypeError: If `metric` is nothing that measures.
        ValueError: If it is None and the output is not that of a classifier.
    """
    return Accuracy(output) if metric is None else MetricScore(metric)


def labels_of(batch: Batch) -> np.ndarray:
    """Return the labels of a batch for a model with one output, or raise if they are several."""
    if not isinstance(batch.y, np.ndarray):
        raise ValueError(
            f"Expected one array of labels, as models are measured by one output. Received: {type(batch.y).__name__}."
        )
    return batch.y


def _weights(batch: Batch) -> np.ndarray:
    """Return one weight for each sample: 1 where there are none."""
    weights = np.ones(batch.num_samples) if batch.sample_weight is None else batch.sample_weight
    if not isinstance(weights, np.ndarray) or weights.size != batch.num_samples:
        found = getattr(weights, "shape", type(weights).__name__)
        raise ValueError(f"Accuracy takes one weight for each sample, of shape (samples,). Received: {found}.")
    return weights.reshape(-1)


def class_labels(y: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Return labels as integers of shape `(samples,)`, from integers or one-hot rows, or raise if they are neither.

    Args:
        y: Labels of shape `(samples,)` or `(samples, 1)`, or one-hot of shape `(samples, classes)`.
        num_classes: How many classes the models tell apart; None if not known.

    Returns:
        The labels.

    Raises:
        ValueError: If they do not fit the classes.

    Example:

    >>> class_labels(np.array([[0, 1, 0], [1, 0, 0]]), 3).tolist(), class_labels(np.array([2, 0]), 3).tolist()
    ([1, 0], [2, 0])
    """
    advice = "Pass metric= for anything but classes."
    if y.ndim == 2 and y.shape[1] > 1:
        if y.shape[1] != num_classes:
            raise ValueError(f"The labels have {y.shape[1]} classes, the models {num_classes}. {advice}")
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise ValueError(f"Expected one-hot labels: a single 1 in every row, and zeros. {advice}")
        return y.argmax(axis=1)
    if y.ndim not in (1, 2) or y.dtype.kind not in "iufb" or (y != np.floor(y)).any():
        raise ValueError(
            f"Expected integer labels (samples,) or one-hot labels (samples, classes). "
            f"Received: {y.dtype} of shape {y.shape}. {advice}"
        )
    labels = y.reshape(len(y)).astype(np.int64)
    if labels.size and (labels.min() < 0 or (num_classes is not None and labels.max() >= num_classes)):
        raise ValueError(
            f"The models tell {num_classes} classes apart, 0 to {(num_classes or 0) - 1}; the labels go from "
            f"{labels.min()} to {labels.max()}. {advice}"
        )
    return labels
