"""What `compare` measures on the data: accuracy, or a metric of the user's."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

Metric: TypeAlias = keras.metrics.Metric | Callable[[np.ndarray, np.ndarray], Any]


class Score(ABC):
    """What one entry is worth: fed with batches, asked once.

    Attributes:
        name: What is measured.
    """

    name: str

    @abstractmethod
    def check(self, y: np.ndarray) -> None:
        """Raise if these labels cannot be measured on."""

    @abstractmethod
    def add(self, y: np.ndarray, outputs: np.ndarray) -> None:
        """Take in a batch."""

    @abstractmethod
    def result(self) -> float:
        """Return the score of all batches."""


class Accuracy(Score):
    """The fraction of samples whose largest output is the label's; a sample with NaN among its outputs is wrong."""

    name = "accuracy"

    def __init__(self, output: tuple[int | None, ...]) -> None:
        if len(output) != 1 or output[0] == 1:
            raise ValueError(
                f"Accuracy is of outputs with a number for each class. Received: models whose output for a sample has "
                f"the shape {output}. Pass metric=, such as keras.metrics.BinaryAccuracy() or MeanAbsoluteError()."
            )
        self._num_classes = output[0]
        self._hits = self._samples = 0

    def check(self, y: np.ndarray) -> None:
        """Raise if `y` are not labels of these classes."""
        class_labels(y, self._num_classes)

    def add(self, y: np.ndarray, outputs: np.ndarray) -> None:
        """Count the hits."""
        hits = (outputs.argmax(axis=-1) == class_labels(y, self._num_classes)) & ~np.isnan(outputs).any(axis=-1)
        self._hits += int(hits.sum())
        self._samples += len(y)

    def result(self) -> float:
        """Return the fraction."""
        return self._hits / self._samples


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
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def check(self, y: np.ndarray) -> None:
        """Take any labels: what they mean is the metric's business."""

    def add(self, y: np.ndarray, outputs: np.ndarray) -> None:
        """Keep the batch."""
        self._batches.append((y, outputs))

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
            return self._metric(*(np.concatenate(arrays) for arrays in zip(*self._batches, strict=True)))
        self._metric.reset_state()
        for y, outputs in self._batches:
            self._metric.update_state(y, outputs)
        value = keras.ops.convert_to_numpy(self._metric.result())
        self._metric.reset_state()
        return value


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
