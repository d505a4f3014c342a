"""How the gradient of the loss changes along a direction: products of the Hessian with a vector."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.statistics.collectors import Collector, Subject, tensor_of
from tfprune.statistics.taps import Taps
from tfprune.statistics.weight_gradients import WeightGradients, add_to, means_of, sums_for


def hessian_vector_product(
    loss: Callable[[], Any], variables: Sequence[keras.Variable], vectors: Sequence[Any]
) -> list[Any]:
    """Return the product of the Hessian of a loss with a vector, without making the Hessian.

    It is the gradient of the slope of the loss along the vector, so it costs two backward passes.

    Reference: Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6, 1994.

    Args:
        loss: Computes the loss, a scalar, from the variables.
        variables: What the Hessian is with respect to.
        vectors: The vector: for each variable a tensor of its shape.

    Returns:
        For each variable a tensor of its shape; None where the slope does not depend on it.

    Example:

    >>> w = keras.Variable([1.0, 2.0])
    >>> (product,) = hessian_vector_product(lambda: keras.ops.sum(w**3), [w], [keras.ops.ones(2)])
    >>> product.numpy()
    array([ 6., 12.], dtype=float32)
    """
    tensors = [tensor_of(variable) for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(tensors)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(tensors)
            value = loss()
        gradients = inner.gradient(value, tensors)
        terms = [
            tf.reduce_sum(tf.cast(tf.convert_to_tensor(gradient), tf.float32) * tf.cast(vector, tf.float32))
            for gradient, vector in zip(gradients, vectors, strict=True)
            if gradient is not None
        ]
        slope = tf.add_n(terms) if terms else None
    return [None] * len(tensors) if slope is None else outer.gradient(slope, tensors)


class HessianGradient(WeightGradients):
    """Gathers the product of the Hessian with the gradient: which way a step of descent turns the gradient.

    The data is read twice: for the mean gradient, and for the products of the samples' Hessians with it.

    Reference: Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020,
    https://arxiv.org/abs/2002.07376
    """

    names = ("hessian_gradient",)
    num_passes = 2

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._directions: list[Any] | None = None

    @property
    def directions(self) -> Sequence[Any] | None:
        """In the second pass, the mean gradient."""
        return self._directions

    def end_pass(self, num_samples: int) -> None:
        """Take the mean gradient for the direction of the next pass."""
        if self._directions is None:
            self._directions = [tf.Variable(total / num_samples) for total in self._sums]
            self._sums = sums_for(self._variables)


class HessianWeights(Collector):
    """Gathers the product of the Hessian with the weights that make the channels of all groups that may be pruned.

    Reference: Nonnenmacher et al., SOSP: Efficiently Capturing Global Correlations by Second-Order Structured Pruning,
    ICLR 2022, https://arxiv.org/abs/2110.11395
    """

    names = ("hessian_weights",)
    of = "variables"

    def __init__(self, subject: Subject) -> None:
        members = [member for group in subject.analysis.groups.free for member in group.with_role("producer", "affine")]
        self._variables = [*{id(member.variable): member.variable for member in members}.values()]
        chosen = {id(variable): np.zeros(variable.shape, bool) for variable in self._variables}
        for member in members:
            np.moveaxis(chosen[id(member.variable)], member.axis, 0)[member.positions] = True
        self._chosen = [chosen[id(variable)] for variable in self._variables]
        self._sums = sums_for(self._variables)

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The variables that make, scale and shift channels."""
        return self._variables

    @property
    def directions(self) -> Sequence[Any]:
        """Their weights; zeros where they belong to no channel that may be pruned."""
        pairs = zip(self._variables, self._chosen, strict=True)
        return [tf.where(chosen, tf.cast(variable.value, tf.float32), 0.0) for variable, chosen in pairs]

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the products of a batch."""
        add_to(self._sums, gradients)

    def result(self, num_samples: int) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return the means."""
        return {"hessian_weights": means_of(self._variables, self._sums, num_samples)}
