"""What is made up for, without training, after channels went: the one place where data repairs a smaller model."""

from typing import Any

import keras

from tfprune.reconstruction import reconstruct
from tfprune.shrinking.recalibration import batch_normalizations, recalibrate


def touch_up(model: keras.Model, data: Any, max_samples: int) -> None:
    """Recalibrate, in place, a smaller model of which more channels will go: enough for it to be measured.

    Args:
        model: The smaller model.
        data: Samples, in any form that can be read again.
        max_samples: How many of them to use at most.
    """
    if batch_normalizations(model):
        recalibrate(model, data, max_samples=max_samples)


def repair(small: keras.Model, model: keras.Model, data: Any, max_samples: int) -> None:
    """Make up, in place and without labels, for what a smaller model lacks.

    Args:
        small: The smaller model.
        model: The model that it was made of.
        data: Samples, in any form that can be read again.
        max_samples: How many of them to use at most.
    """
    reconstruct(small, model, data, max_samples=max_samples)
