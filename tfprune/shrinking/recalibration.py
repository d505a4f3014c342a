"""Measure BatchNormalization statistics anew, on data and without training."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from tfprune.common.temporarily import restored
from tfprune.data import Batch, Reader, inputs_of
from tfprune.graph import check_built
from tfprune.graph.chains import chains


def recalibrate(model: keras.Model, data: Any, *, batch_size: int = 128, max_samples: int | None = None) -> None:
    """Replace the moving statistics of every BatchNormalization layer by those of `data`, in place.

    A pruned network feeds its normalization layers other means and variances than those that they learned.
    Each layer receives the mean and variance of the batches, averaged over the samples. No weight is trained, and no
    other state, such as the seeds of Dropout, moves. Whatever is raised, also by the data itself, leaves the model
    unchanged.

    Reference: Li et al., EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning, ECCV 2020,
    https://arxiv.org/abs/2007.02491

    Args:
        model: A built Keras model.
        data: Inputs as for training, some hundreds or thousands, in any form that `fit` takes: arrays `x`, `(x, y)` or
            `(x, y, sample_weight)`, of which `x` is used, or a finite dataset or iterable of batches of these.
        batch_size: Samples per batch, for arrays.
        max_samples: Read at most this many: evenly spread over arrays, the first ones of anything else. None for all.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or the data has another form.
        ValueError: If the model is not built or has no BatchNormalization layer, or the data is empty or endless, does
            not fit the model, or is not finite.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> recalibrate(model, np.array([[1.0], [3.0]]))
    >>> model.layers[0].moving_mean.numpy(), model.layers[0].moving_variance.numpy()
    (array([2.], dtype=float32), array([1.], dtype=float32))
    """
    check_built(model)
    if not batch_normalizations(model):
        raise ValueError(f"{model.name!r} has no BatchNormalization layer, so there is nothing to recalibrate.")
    reader = Reader(data, inputs_of(model), batch_size=batch_size, max_samples=max_samples)
    measure_statistics(model, reader, lambda x: model(x, training=True))


def measure_statistics(model: keras.Model, batches: Iterable[Batch], call: Callable[[Any], Any]) -> None:
    """Do what `recalibrate` does, given how the model is called: a compiled call pays where this is done often.

    Args:
        model: A model with BatchNormalization layers.
        batches: The data.
        call: Calls the model as in training.
    """
    layers = batch_normalizations(model)
    settings = [(layer.momentum, layer.trainable) for layer in layers]
    untrained = [variable for variable in model.variables if not variable.trainable]  # also the seeds of Dropout
    statistics = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
    totals = [np.zeros(variable.shape, np.float64) for variable in statistics]
    count = 0
    try:
        with restored(untrained):
            for layer in layers:
                layer.trainable, layer.momentum = True, 0.0  # the moving statistics become those of the batch
            for batch in batches:
                call(batch.x)
                count += batch.num_samples
                for total, variable in zip(totals, statistics, strict=True):
                    total += batch.num_samples * variable.numpy()
    finally:
        for layer, (momentum, trainable) in zip(layers, settings, strict=True):
            layer.momentum, layer.trainable = momentum, trainable
    for variable, total in zip(statistics, totals, strict=True):
        variable.assign(total / count)


def batch_normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return every BatchNormalization of a model, also those inside other layers.

    Example:

    >>> [layer.name for layer in batch_normalizations(keras.Sequential([keras.layers.BatchNormalization(name="norm")]))]
    ['norm']
    """
    every = {id(chain[-1]): chain[-1] for chain in chains(model)}.values()  # a shared layer once
    return [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]
