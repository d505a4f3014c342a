"""Measure BatchNormalization statistics anew: no training, and often most of what pruning lost."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np


def recalibrate(model: keras.Model, data: Any, *, batch_size: int = 128) -> None:
    """Replace the moving statistics of every BatchNormalization layer by those of `data`, in place.

    A pruned network feeds its normalization layers other means and variances than those that they learned.
    Each layer receives the mean over batches of the batch mean and variance. No weight is trained.

    Reference: Li et al., EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning, ECCV 2020,
    https://arxiv.org/abs/2007.02491

    Args:
        model: A built Keras model.
        data: Inputs as for training, some hundreds or thousands: an array, a tuple (x, y) of which x is used, or
            an iterable of batches (of x, or of tuples that start with x) such as a `tf.data.Dataset`.
        batch_size: Samples per batch, for an array.

    Raises:
        ValueError: If the data is empty, or the model has no BatchNormalization layer. The model is then unchanged.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> recalibrate(model, np.array([[1.0], [3.0]]))
    >>> model.layers[0].moving_mean.numpy(), model.layers[0].moving_variance.numpy()
    (array([2.], dtype=float32), array([1.], dtype=float32))
    """
    layers = [layer for layer in _flatten(model) if isinstance(layer, keras.layers.BatchNormalization)]
    if not layers:
        raise ValueError(f"{model.name!r} has no BatchNormalization layer, so there is nothing to recalibrate.")
    before = [(layer.momentum, layer.trainable) for layer in layers]
    statistics = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    totals = [np.zeros(variable.shape, np.float64) for variable in statistics]
    count = 0
    try:
        for layer in layers:
            layer.trainable, layer.momentum = True, 0.0  # the moving statistics become those of the batch
        for batch in _batches(data, batch_size):
            model(batch, training=True)
            count += 1
            for total, variable in zip(totals, statistics, strict=True):
                total += variable.numpy()
    finally:
        for layer, (momentum, trainable) in zip(layers, before, strict=True):
            layer.momentum, layer.trainable = momentum, trainable
    if count == 0:
        raise ValueError("The data is empty. Give some hundreds of samples like those of training.")
    for variable, total in zip(statistics, totals, strict=True):
        variable.assign(total / count)


def _flatten(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flatten(layer)
        else:
            yield layer


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    data = data[0] if isinstance(data, tuple) else data
    if isinstance(data, np.ndarray):
        for start in range(0, len(data), batch_size):
            yield data[start : start + batch_size]
    elif isinstance(data, Iterable):
        for batch in data:
            yield batch[0] if isinstance(batch, tuple) else batch
    else:
        raise TypeError(f"data must be an array, (x, y) or an iterable of batches. Received: {type(data).__name__}.")
