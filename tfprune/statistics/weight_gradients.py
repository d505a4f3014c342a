"""What the loss says about single weights, to first order."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.taps import Taps


class WeightGradients(Collector):
    """Gathers the mean gradient of the loss of a sample with respect to each trainable weight."""

    names = ("gradient",)
    of = "variables"

    def __init__(self, subject: Subject) -> None:
        self._variables = subject.model.trainable_variables
        self._sums = [tf.Variable(tf.zeros(variable.shape)) for variable in self._variables]

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """All trainable variables."""
        return self._variables

    def sources(self, taps: Taps) -> list[Any]:
        """Return the variables."""
        return list(self._variables)

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the gradients; a variable that the loss does not depend on has none."""
        for total, gradient in zip(self._sums, gradients, strict=True):
            if gradient is not None:
                total.assign_add(tf.cast(tf.convert_to_tensor(gradient), tf.float32))

    def result(self, num_samples: int) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return the means."""
        pairs = zip(self._variables, self._sums, strict=True)
        return {"gradient": {variable.path: total.numpy() / num_samples for variable, total in pairs}}
