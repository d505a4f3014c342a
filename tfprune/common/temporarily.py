"""What is changed for the length of a context, and put back behind it, whatever is raised."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras


@contextmanager
def restored(variables: Iterable[keras.Variable], *, only_if_raised: bool = False) -> Iterator[None]:
    """Put back the values that variables have now when the context ends.

    Args:
        variables: The variables.
        only_if_raised: Whether they keep what they have become where nothing is raised: all or nothing.

    Example:

    >>> variable = keras.Variable(1.0)
    >>> with restored([variable]):
    ...     changed = variable.assign(2.0)
    >>> float(variable.numpy())
    1.0
    """
    values = [(variable, variable.numpy()) for variable in variables]
    ended = False
    try:
        yield
        ended = True
    finally:
        if not (ended and only_if_raised):
            for variable, value in values:
                variable.assign(value)


@contextmanager
def replaced_calls(calls: Iterable[tuple[keras.layers.Layer, Callable[..., Any]]]) -> Iterator[None]:
    """Let layers compute something else while the context is open, wherever they are called.

    `call` is set on the instances, so that no model has to be made anew, and nothing of it stays.

    Args:
        calls: Pairs of a layer, each once, and what takes the place of its `call`.

    Example:

    >>> layer = keras.layers.ReLU()
    >>> with replaced_calls([(layer, lambda inputs: 2 * inputs)]):
    ...     float(layer(keras.ops.array(-1.0)))
    -2.0
    >>> float(layer(keras.ops.array(-1.0)))
    0.0
    """
    pairs: list[tuple[Any, Callable[..., Any]]] = list(calls)
    try:
        for layer, call in pairs:
            layer.call = call
        yield
    finally:
        for layer, _ in pairs:
            layer.__dict__.pop("call", None)
