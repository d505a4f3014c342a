"""What is made up for, without training, after channels went: the one place where data repairs a smaller model."""

from typing import Any

import keras

from tfprune.shrinking.recalibration import batch_normalizations, recalibrate


def is_repairable(model: keras.Model) -> bool:
    """Return whether there is anything in a model that data can repair.

    Example:

    >>> is_repairable(keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()]))
    True
    """
    return bool(batch_normalizations(model))


def repair(model: keras.Model, data: Any, max_samples: int) -> None:
    """Make up for what is missing since channels went, in place and without labels.

    Args:
        model: The smaller model.
        data: Samples, in any form that can be read again.
        max_samples: How many of them to use at most.
    """
    if is_repairable(model):
        recalibrate(model, data, max_samples=max_samples)
