"""A model as it is measured: in float32, and afterwards as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from tfprune.common.temporarily import restored
from tfprune.graph.chains import chains

_HALF = ("float16", "bfloat16")


@contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Compute in float32 while the context is open, and put back what calls may move: seeds, and states of layers.

    Gradients of half precision vanish below 6e-8, and are scaled in training for that; measured ones need not be.

    Args:
        model: A built Keras model.

    Example:

    >>> layer = keras.layers.Dense(2, dtype="mixed_float16")
    >>> model = keras.Sequential([keras.Input((3,)), layer])
    >>> with undisturbed(model):
    ...     layer.compute_dtype
    'float32'
    >>> layer.compute_dtype
    'float16'
    """
    layers = {id(layer): layer for layer in (model, *(chain[-1] for chain in chains(model)))}.values()
    half = [(layer, layer.dtype_policy) for layer in layers if layer.compute_dtype in _HALF]
    half = [(layer, policy) for layer, policy in half if policy.quantization_mode is None]
    try:
        for layer, _ in half:
            layer.dtype_policy = "float32"
        with restored(model.non_trainable_variables):
            yield
    finally:
        for layer, policy in half:
            layer.dtype_policy = policy
