"""What the loss says about single weights: the mean of its gradient, and the mean of its square."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph.chains import chains
from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.taps import Taps


class WeightGradients(Collector):
    """Gathers the mean gradient of the loss of a sample with respect to each weight."""

    names: ClassVar[tuple[str, ...]] = ("gradient",)
    of = "variables"

    def __init__(self, subject: Subject) -> None:
        self._variables = weights_of(subject.model)
        self._sums = sums_for(self._variables)

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """All weights."""
        return self._variables

    def sources(self, taps: Taps) -> list[Any]:
        """Return the variables."""
        return list(self._variables)

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the gradients; a variable that the loss does not depend on has none."""
        add_to(self._sums, gradients)

    def result(self, num_samples: int) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return the means."""
        return {self.names[0]: means_of(self._variables, self._sums, num_samples)}


class SquaredWeightGradients(WeightGradients):
    """Gathers the mean of the squared gradients of single samples: the diagonal of the Fisher information.

    The square of a sample's gradient is not in the gradient of a batch, so samples go through the model one by one.
    """

    names = ("squared_gradient",)
    of_single_samples = True

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the squares of the gradients of one sample."""
        add_to(self._sums, [None if each is None else tf.square(_dense(each)) for each in gradients])


def weights_of(model: keras.Model) -> list[keras.Variable]:
    """Return the weights of a model, also those that are frozen, but not what training steps update in other ways.

    Args:
        model: A built Keras model.

    Returns:
        Its floating point variables without the state of layers, such as moving statistics.
    """
    frozen = [layer for *_, layer in chains(model) if not layer.trainable]
    wanted = {id(each) for owner in (model, *frozen) for each in (owner.trainable_weights or owner.weights)}
    return [each for each in model.weights if id(each) in wanted and keras.backend.is_float_dtype(each.dtype)]


def sums_for(variables: Sequence[keras.Variable]) -> list[tf.Variable]:
    """Return zeros to add to, in float32, for each variable."""
    return [tf.Variable(tf.zeros(variable.shape)) for variable in variables]


def add_to(sums: Sequence[tf.Variable], tensors: Sequence[Any]) -> None:
    """Add to each sum a tensor, or nothing where it is None."""
    for total, tensor in zip(sums, tensors, strict=True):
        if tensor is not None:
            total.assign_add(_dense(tensor))


def means_of(variables: Sequence[keras.Variable], sums: Sequence[Any], num_samples: int) -> dict[str, np.ndarray]:
    """Return by the path of each variable its mean over the samples."""
    pairs = zip(variables, sums, strict=True)
    return {variable.path: total.numpy() / num_samples for variable, total in pairs}


def _dense(tensor: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(tensor), tf.float32)  # gradients of embeddings are sparse
