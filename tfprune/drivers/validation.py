"""What a model is worth on the validation data."""

from typing import Any

import keras

from tfprune.drivers.data import read
from tfprune.measure.entries import KerasEntry
from tfprune.measure.scores import Metric, make_score


class Validation:
    """Measures models on data, in the way in which `compare` does.

    Args:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, or a dataset of batches.
        metric: What to measure; None for accuracy.
    """

    def __init__(self, data: Any, metric: Metric | None) -> None:
        self._data, self._metric = data, metric

    def score(self, model: keras.Model) -> float:
        """Return the score of a model."""
        entry = KerasEntry("model", model)
        score = make_score(self._metric, entry.outputs[0].shape)
        for batch in read(self._data, model, "validation"):
            score.check(batch)
            (answers,) = entry.predict(entry.samples(batch.x))
            score.add(batch, answers)
        return score.result()
