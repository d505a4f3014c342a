"""Activations that hold an exponential, as sums that neither overflow in float nor lose all digits in int8.

The converter writes `softplus(x)` as `log(1 + exp(x))`, which is infinite in float32 from 89 on, and in which int8
has 256 levels for the exponential of the largest number.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def stable_activation(operation: Any) -> Callable[[Any], Any] | None:
    """Return what computes the activation of a layer or operation by numbers that stay small.

    Args:
        operation: A layer with an `activation`, or an operation of `keras.ops`.

    Returns:
        The function; `None` where the converter needs no help.

    Example:

    >>> stable = stable_activation(keras.layers.Dense(3, activation="softplus"))
    >>> float(stable(keras.ops.array(200.0)))
    200.0
    """
    if not type(operation).__module__.startswith("keras."):
        return None
    if isinstance(operation, keras.layers.Layer):
        activation = getattr(operation, "activation", None)
        return next((stable for plain, stable in _FUNCTIONS.items() if plain is activation), None)
    # Operations of keras.ops are told apart by name: their classes are not public.
    return _OPERATIONS.get(type(operation).__name__)


def _softplus(x: Any) -> Any:
    return ops.relu(x) + _correction(x)


def _log_sigmoid(x: Any) -> Any:
    return x - ops.relu(x) - _correction(x)


def _correction(x: Any) -> Any:
    """`log(1 + exp(-|x|))`, which is at most log 2. LiteRT has no integer operator that changes signs."""
    return ops.log(1.0 + ops.exp(x - 2.0 * ops.relu(x)))


def _mish(x: Any) -> Any:
    return x * ops.tanh(_softplus(x))


_FUNCTIONS = {
    keras.activations.softplus: _softplus,
    keras.activations.log_sigmoid: _log_sigmoid,
    keras.activations.mish: _mish,
}
_OPERATIONS = {"Softplus": _softplus, "LogSigmoid": _log_sigmoid}


def activation_change(layer: Any) -> dict[str, Any]:
    """Return what has to differ in the config of a copy of a layer that holds such an activation; else nothing.

    Args:
        layer: A layer or operation.

    Example:

    >>> sorted(activation_change(keras.layers.Dense(2, "softplus"))), activation_change(keras.layers.Dense(2, "relu"))
    (['activation'], {})
    """
    activation = stable_activation(layer)
    return {"activation": activation} if activation is not None and isinstance(layer, keras.layers.Layer) else {}
