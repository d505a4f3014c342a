"""What the weights of a layer are multiplied with: norms of its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph.chains import chains
from tfprune.statistics.collectors import Collector, Subject
from tfprune.statistics.taps import Taps
from tfprune.statistics.weight_gradients import add_to, sums_for

L = keras.layers
LINEAR = (
    *(L.Dense, L.EinsumDense, L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D),
    *(L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose),
)
"""Layers whose output, before its activation, is a sum of products of inputs and weights of one kernel. Subclasses may
compute something else."""


class InputNorms(Collector):
    """Gathers for each weight the norm of all inputs that it is multiplied with: the root of their mean square sum.

    The squares are summed over the samples' positions, and averaged over samples. Of a convolution each weight has the
    inputs that its place in the window sees. A shared layer's calls count together.
    """

    names = ("input_norm",)
    of = "variables"

    def __init__(self, subject: Subject) -> None:
        found = {id(chain[-1]): chain[-1] for chain in chains(subject.model) if type(chain[-1]) in LINEAR}
        self._layers = [layer for layer in found.values() if isinstance(layer.kernel, keras.Variable)]
        self._sums = sums_for([layer.kernel for layer in self._layers])

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The layers with a kernel."""
        return self._layers

    def add(self, taps: Taps, gradients: Sequence[Any]) -> None:
        """Add the squares of a batch."""
        for layer, total in zip(self._layers, self._sums, strict=True):
            for passed in taps.of(layer):
                add_to([total], [_sums_of_squares(layer, passed.inputs[0])])

    def result(self, num_samples: int) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Return the norms."""
        pairs = zip(self._layers, self._sums, strict=True)
        return {"input_norm": {layer.kernel.path: np.sqrt(total.numpy() / num_samples) for layer, total in pairs}}


def _sums_of_squares(layer: keras.layers.Layer, inputs: Any) -> Any:
    """For each weight the sum of the squared inputs that it is multiplied with.

    The outputs are linear in the kernel, so this is the gradient of their sum if the inputs are squared first; whatever
    strides, padding and groups do.
    """
    kernel = layer.kernel.value
    with tf.GradientTape(watch_accessed_variables=False) as tape, _without_activation(layer):
        tape.watch(kernel)
        total = tf.reduce_sum(layer.call(tf.square(tf.cast(inputs, tf.float32))))
    return tape.gradient(total, kernel)


@contextmanager
def _without_activation(layer: keras.layers.Layer) -> Iterator[None]:
    activation = layer.activation
    layer.activation = None
    try:
        yield
    finally:
        layer.activation = activation
