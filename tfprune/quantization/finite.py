"""Whether weights can be quantized at all."""

import keras
from keras import ops


def check_finite_weights(model: keras.Model) -> None:
    """Raise if a weight of a model is NaN or infinite: no scale stands for it, and the converter ends the process.

    Args:
        model: A built model.

    Raises:
        ValueError: If there is one.

    Example:

    >>> check_finite_weights(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))
    """
    for variable in model.weights:
        if keras.backend.is_float_dtype(variable.dtype) and not bool(ops.all(ops.isfinite(variable))):
            raise ValueError(
                f"{variable.path!r} of model {model.name!r} has NaN or infinite numbers, which cannot be quantized. "
                "Train it again, with a smaller learning rate or clipped gradients."
            )
