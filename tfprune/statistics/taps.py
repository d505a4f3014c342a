"""What goes into layers and comes out of them while a model is called."""

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras


class Passed(NamedTuple):
    """One call of a layer.

    Attributes:
        inputs: The tensors that went in, in the order of the arguments.
        outputs: The tensors that came out.
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

    def record(self, layer: keras.layers.Layer, given: Any, returned: Any) -> None:
        """Keep one call."""
        flat = [[tensor for tensor in keras.tree.flatten(part) if is_float(tensor)] for part in (given, returned)]
        for tensor in (*flat[0], *flat[1]):
            self._watch(tensor)
        self._calls[id(layer)].append(Passed(*flat))


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
    try:
        for layer in each:
            layer.call = _recording(layer, taps)
        yield taps
    finally:
        for layer in each:
            layer.__dict__.pop("call", None)


def _recording(layer: keras.layers.Layer, taps: Taps) -> Any:
    call = layer.call

    @functools.wraps(call)  # Keras looks at the signature
    def recording(*args: Any, **kwargs: Any) -> Any:
        returned = call(*args, **kwargs)
        taps.record(layer, (args, kwargs), returned)
        return returned

    return recording
