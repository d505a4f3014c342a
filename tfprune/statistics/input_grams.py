"""Gram matrices of what the weights of a layer are multiplied with, one layer at a time."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Batch
from tfprune.statistics.taps import tapped
from tfprune.statistics.undisturbed import undisturbed

L = keras.layers
Rows = Callable[[Any], Any]
"""From the inputs of a layer to a float32 matrix: a row for each position of each sample, a column for each of the
inputs that are summed, in the order of the kernel."""


def rows_of(layer: keras.layers.Layer) -> Rows | None:
    """Return how the inputs of a layer become rows, or None if they do not.

    `Dense`, `EinsumDense` and convolutions of one group have rows; a subclass may compute something else.

    Example:

    >>> layer = L.Conv1D(1, 2)
    >>> layer.build((None, 3, 1))
    >>> rows_of(layer)(tf.constant([[[1.0], [2.0], [3.0]]])).numpy()
    array([[1., 2.],
           [2., 3.]], dtype=float32)
    """
    if type(layer) is L.Dense:
        return lambda inputs: tf.reshape(inputs, (-1, inputs.shape[-1]))
    if type(layer) is L.EinsumDense:
        return _einsum_rows(layer)
    if type(layer) in (L.Conv1D, L.Conv2D, L.Conv3D) and layer.groups == 1:
        return lambda inputs: _windows(layer, inputs)
    return None


class InputGrams:
    """Measures the Gram matrices of the inputs of one layer after another, on the model as it is then.

    There is never more than one matrix in memory, and the model is traced once.

    Args:
        model: The model; it is not changed.
        layers: Layers that have `rows_of`.
        batches: Reads the data; once for each layer.
        ones: Whether each row has a 1 at its end, so that the last line holds the sums of the rows and their number.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[keras.layers.Layer],
        batches: Iterable[Batch],
        ones: bool = False,
    ) -> None:
        self._model, self._layers, self._batches, self._ones = model, layers, batches, ones
        self._step = tf.function(self._gram, autograph=False, reduce_retracing=True)

    def __call__(self, index: int) -> np.ndarray:
        """Return the Gram matrix of a layer, float32: the mean over samples of the sum over positions."""
        total, num_samples = None, 0
        with undisturbed(self._model):
            for batch in self._batches:
                found = self._step(batch.x, tf.constant(index))
                total = found if total is None else total + found
                num_samples += batch.num_samples
        assert total is not None
        return (total / num_samples).numpy()

    def _gram(self, x: Any, index: Any) -> Any:
        with tapped(self._layers, lambda tensor: None) as taps:
            self._model(x, training=False)
        seen = [[passed.inputs[0] for passed in taps.of(layer)] for layer in self._layers]
        pairs = [*zip(self._layers, seen, strict=True)]
        gram = functools.partial(_gram_of, ones=self._ones)
        return tf.switch_case(index, [lambda layer=layer, each=each: gram(layer, each) for layer, each in pairs])


def _gram_of(layer: keras.layers.Layer, inputs: Sequence[Any], ones: bool) -> Any:
    rows = rows_of(layer)
    assert rows is not None
    matrices = [rows(tf.cast(each, tf.float32)) for each in inputs]
    if ones:
        matrices = [tf.pad(each, [[0, 0], [0, 1]], constant_values=1.0) for each in matrices]
    return tf.add_n([tf.matmul(matrix, matrix, transpose_a=True) for matrix in matrices])


def _windows(layer: Any, inputs: Any) -> Any:
    """The windows of a convolution: its output with a kernel for each single weight."""
    shape = layer.kernel.shape
    size = int(np.prod(shape[:-1]))
    each = tf.reshape(tf.eye(size), (*shape[:-1], size))
    options = {"padding": layer.padding, "data_format": layer.data_format, "dilation_rate": layer.dilation_rate}
    if layer.padding == "causal":
        left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        time = [left, 0]
        channels_last = layer.data_format == "channels_last"
        inputs = tf.pad(inputs, [[0, 0], time, [0, 0]] if channels_last else [[0, 0], [0, 0], time])
        options["padding"] = "valid"
    found = keras.ops.conv(inputs, each, strides=layer.strides, **options)
    if layer.data_format == "channels_first":
        found = tf.experimental.numpy.moveaxis(found, 1, -1)
    return tf.reshape(found, (-1, size))


def _einsum_rows(layer: keras.layers.EinsumDense) -> Rows | None:
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    summed = [letter for letter in kernel if letter not in output]
    kept = [letter for letter in inputs if letter not in summed]
    is_product = set(summed) <= set(inputs) and not set(kept) & set(kernel) and set(kept) <= set(output)
    if not is_product or "." in inputs:
        return None
    order = [inputs.index(letter) for letter in (*kept, *summed)]
    size = int(np.prod([layer.kernel.shape[kernel.index(letter)] for letter in summed]))
    return lambda tensor: tf.reshape(tf.transpose(tensor, order), (-1, size))
