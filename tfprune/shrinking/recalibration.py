"""Measure BatchNormalization statistics anew, on data and without training."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph import check_built, is_graph


def recalibrate(model: keras.Model, data: Any, *, batch_size: int = 128) -> None:
    """Replace the moving statistics of every BatchNormalization layer by those of `data`, in place.

    A pruned network feeds its normalization layers other means and variances than those that they learned.
    Each layer receives the mean and variance of the batches, averaged over the samples. No weight is trained, and no
    other state, such as the seeds of Dropout, moves. Whatever is raised, also by the data itself, leaves the model
    unchanged.

    Reference: Li et al., EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning, ECCV 2020,
    https://arxiv.org/abs/2007.02491

    Args:
        model: A built Keras model.
        data: Inputs as for training, some hundreds or thousands: an array, a dict of arrays, a tuple (x, y) of which x
            is used, or an iterable of batches (of x, or of tuples that start with x) such as a finite
            `tf.data.Dataset`.
        batch_size: Samples per batch, for arrays.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or the data has another form.
        ValueError: If the model is not built or has no BatchNormalization layer, or the data is empty or endless.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> recalibrate(model, np.array([[1.0], [3.0]]))
    >>> model.layers[0].moving_mean.numpy(), model.layers[0].moving_variance.numpy()
    (array([2.], dtype=float32), array([1.], dtype=float32))
    """
    check_built(model)
    layers = batch_normalizations(model)
    if not layers:
        raise ValueError(f"{model.name!r} has no BatchNormalization layer, so there is nothing to recalibrate.")
    settings = [(layer.momentum, layer.trainable) for layer in layers]
    state = [(variable, variable.numpy()) for variable in model.variables if not variable.trainable]
    statistics = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    totals = [np.zeros(variable.shape, np.float64) for variable in statistics]
    # A model that was made from a list of one input warns when it is given the tensor alone.
    in_list = is_graph(model) and not isinstance(model, keras.Sequential) and isinstance(model.input, (list, tuple))
    count = 0
    try:
        for layer in layers:
            layer.trainable, layer.momentum = True, 0.0  # the moving statistics become those of the batch
        for batch in _batches(data, batch_size):
            samples = len(keras.tree.flatten(batch)[0])
            model([batch] if in_list and hasattr(batch, "shape") else batch, training=True)
            count += samples
            for total, variable in zip(totals, statistics, strict=True):
                total += samples * variable.numpy()
    finally:
        for layer, (momentum, trainable) in zip(layers, settings, strict=True):
            layer.momentum, layer.trainable = momentum, trainable
        for variable, value in state:  # also the seeds of Dropout
            variable.assign(value)
    if count == 0:
        raise ValueError("The data is empty. Give some hundreds of samples like those of training.")
    for variable, total in zip(statistics, totals, strict=True):
        variable.assign(total / count)


def batch_normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return every BatchNormalization of a model, also those inside other layers.

    Example:

    >>> [layer.name for layer in batch_normalizations(keras.Sequential([keras.layers.BatchNormalization(name="norm")]))]
    ['norm']
    """
    # Private: the public `layers` leaves out those inside other layers.
    # tests/shrinking/test_recalibration.py has such a model.
    every = model._flatten_layers(include_self=False)
    return [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    data = data[0] if isinstance(data, tuple) else data
    if isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("The dataset repeats without end. Use data.take(number_of_batches).")
    if isinstance(data, Mapping) or hasattr(data, "__array__"):
        arrays = keras.tree.map_structure(np.asarray, data)
        for start in range(0, len(keras.tree.flatten(arrays)[0]), batch_size):
            yield keras.tree.map_structure(lambda array, start=start: array[start : start + batch_size], arrays)
    elif isinstance(data, Iterable):
        for batch in data:
            yield batch[0] if isinstance(batch, tuple) else batch
    else:
        raise TypeError(
            "data must be an array, a dict of arrays, a tuple (x, y) or an iterable of batches. "
            f"Received: {type(data).__name__}."
        )
