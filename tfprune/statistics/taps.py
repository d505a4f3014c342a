"""What goes into layers and comes out of them while a model is called."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfprune.common.temporarily import replaced_calls


class Passed(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: The floating point tensors that went in, in the order of the arguments; copies of this call's own.
        outputs: Those that came out.
    """

    inputs: list[Any]
    outputs: list[Any]


class Taps:
    """The calls of some layers, in the order in which they were made.

    Args:
        layers: The layers.
        watch: Called with each tensor that passes, such as `tape.watch`.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer], watch: Any) -> None:
        self._calls: dict[int, list[Passed]] = {id(layer): [] for layer in layers}
        self._watch = watch

    def of(self, layer: keras.layers.Layer) -> list[Passed]:
        """Return the calls of a layer; a shared layer has several."""
        return self._calls[id(layer)]

    def entering(self, given: Any) -> Any:
        """Return the arguments of a call with a copy of each tensor, so that its gradient is that of this call alone.

        Args:
            given: The arguments, of which several calls may share tensors.
        """
        return keras.tree.map_structure(lambda each: self._copied(each) if is_float(each) else each, given)

    def record(self, layer: keras.layers.Layer, given: Any, returned: Any) -> None:
        """Keep one call."""
        flat = [[tensor for tensor in keras.tree.flatten(part) if is_float(tensor)] for part in (given, returned)]
        for tensor in flat[1]:
            self._watch(tensor)
        self._calls[id(layer)].append(Passed(*flat))

    def _copied(self, tensor: Any) -> Any:
        copy = tf.identity(tensor)
        self._watch(copy)
        # Private: where Keras keeps the mask of a tensor. tests/statistics/test_taps.py fails when it moves.
        if (mask := getattr(tensor, "_keras_mask", None)) is not None:
            copy._keras_mask = mask
        return copy


def is_float(tensor: Any) -> bool:
    """Return whether this is a tensor of floating point numbers, for which there are gradients."""
    return keras.ops.is_tensor(tensor) and keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


@contextmanager
def tapped(layers: Iterable[keras.layers.Layer], watch: Any) -> Iterator[Taps]:
    """Record the calls of layers while the context is open.

    `call` is wrapped on the instances, so that layers are heard wherever they are called: in nested models, in wrappers
    and in a `call` of the user's own. Nothing of it stays.

    Args:
        layers: The layers.
        watch: Called with each tensor that goes in or comes out, such as `tape.watch`.

    Yields:
        What passes.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> with tapped([layer], watch=lambda tensor: None) as taps:
    ...     _ = layer(keras.ops.ones((1, 3)))
    >>> [tuple(tensor.shape) for call in taps.of(layer) for tensor in (*call.inputs, *call.outputs)]
    [(1, 3), (1, 2)]
    """
    each = [*{id(layer): layer for layer in layers}.values()]
    taps = Taps(each, watch)
    with replaced_calls((layer, _recording(layer, taps)) for layer in each):
        yield taps


def _recording(layer: keras.layers.Layer, taps: Taps) -> Any:
    call = layer.call

    @functools.wraps(call)  # Keras looks at the signature
    def recording(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = taps.entering((args, kwargs))
        returned = call(*args, **kwargs)
        taps.record(layer, (args, kwargs), returned)
        return returned

    return recording
