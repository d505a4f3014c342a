"""What the smallest differences in rounding become behind the layers that follow."""

import functools
from typing import Any

import keras
import numpy as np

from tfprune.common.temporarily import replaced_calls
from tfprune.exporting.inputs import Samples, keras_outputs
from tfprune.quantization.aware_layers import QuantizeActivation

_SHARE = 0.01


def nudged_outputs(model: keras.Model, samples: Samples) -> list[np.ndarray]:
    """Return the outputs of a quantize-aware model in which 1 in 100 of all rounded numbers is a step off.

    It is so wherever the model rounds: what a file may do differently in one layer, it may do in each, and a deep
    network enlarges the differences of its first layers more than those of its last.

    Args:
        model: A quantize-aware model; it is not changed.
        samples: Arrays of shape `(samples, ...)` by input name.

    Returns:
        The outputs, flat, in the order of the file's signature.

    Example:

    >>> import tfprune
    >>> aware = tfprune.quantize_aware(keras.Sequential([keras.Input((2,), name="x"), keras.layers.ReLU()]))
    >>> _ = aware(np.array([[0.0, 255.0]]), training=True)
    >>> (outputs,) = nudged_outputs(aware, {"x": np.full((1000, 2), 7.0, "float32")})
    >>> sorted(set(np.round(outputs, 3).ravel().tolist()))
    [6.0, 7.0, 8.0]
    """
    random = np.random.default_rng(0)
    layers = [layer for layer in model.layers if isinstance(layer, QuantizeActivation)]
    with replaced_calls((layer, _nudged(layer.call, random)) for layer in layers):
        return keras_outputs(model, samples)


def _nudged(call: Any, random: np.random.Generator) -> Any:
    @functools.wraps(call)  # Keras looks at the signature
    def nudged(*args: Any, **kwargs: Any) -> Any:
        rounded, step = call(*args, **kwargs)
        shape = tuple(rounded.shape)
        moves = (random.random(shape) < _SHARE) * random.choice([-1, 1], shape)
        return rounded + keras.ops.cast(moves * step, rounded.dtype), step

    return nudged
