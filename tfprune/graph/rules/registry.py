"""The table of rules: for each kind of layer, what it does to channels and how it gets smaller.

A rule binds the layer's variables to channel numbers and returns the channels of its output. It must keep the
promises on which exact removal rests: it says which of its variables scale or shift a channel, and clears
`call.zero_stays_zero` where a channel of zeros would come out as something else. What cannot be followed is
frozen, with the reason.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call, Rule

Alive = np.ndarray
"""One bool per channel number of a trace: True for channels that stay. For a model made anew with other widths, a whole
number: how many channels take the place of each."""

Resize = Callable[[Call, dict[str, Any], Alive], None]
"""Edits a layer's config so that a layer made from it has the size of the channels that stay."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Rearrange = Callable[[Call, tuple[Any, ...], dict[str, Any], Alive], Arguments]
"""Rewrites the arguments of a call, such as the bounds of a slice, for the channels that stay."""

Rescale = Callable[[Call, Alive], dict[int, float]]
"""Gives the factors (by id of the variable) that make up for a number of channels in the layer's formula."""


@dataclass(frozen=True)
class LayerRule:
    """What tfprune knows of one kind of layer.

    Attributes:
        trace: What the layer does to channels.
        resize: How its config changes when channels go; `None` if its size follows from its inputs.
        rearrange: How the arguments of its call change; `None` if they stay.
        rescale: By which factors some of its variables change; `None` if they do not.
    """

    trace: Rule
    resize: Resize | None = None
    rearrange: Rearrange | None = None
    rescale: Rescale | None = None


RULES: dict[type | str, LayerRule] = {}


def find_rule(operation: keras.Operation) -> LayerRule | None:
    """Return the rule for the exact class of a layer or operation, or `None`.

    A subclass may compute something else, so its parent's rule is not taken. Keras does not export the
    classes behind `keras.ops`; their rules are found by the class name.

    Args:
        operation: A layer, or an operation of `keras.ops`.

    Returns:
        The rule, or `None` where there is none.

    Example:

    >>> class Custom(keras.layers.Dense):
    ...     pass
    >>> find_rule(keras.layers.Dense(2)) is not None, find_rule(Custom(2))
    (True, None)
    """
    kind = type(operation)
    by_name = RULES.get(kind.__name__) if kind.__module__.startswith("keras.") else None
    return RULES.get(kind, by_name)


def rule(
    *layer_classes: type | str,
    width: str | None = None,
    resize: Resize | None = None,
    rearrange: Rearrange | None = None,
    rescale: Rescale | None = None,
) -> Callable[[Rule], Rule]:
    """Register what a kind of layer does to channels.

    The rule holds for these classes exactly, not for their subclasses. A rule registered again replaces the
    earlier one.

    Args:
        *layer_classes: The classes that the rule speaks of. For a class inside Keras that Keras does not export,
            such as those behind `keras.ops`, its name.
        width: The name of the constructor argument that says how many channels the layer makes, such as
            `"filters"`; `None` for a layer that makes none.
        resize: A function that edits the layer's config, where `width` does not say it all.
        rearrange: A function that rewrites the arguments of the call, for operations that keep sizes there.
        rescale: A function that gives factors for variables, where the layer divides by a number of channels.

    Returns:
        A decorator for the rule, a function from a `Call` to the channels of the output.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=(shape[-1],), name="scale")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @rule(Scale)
    ... def scale(call):
    ...     call.bind(call.layer.scale, 0, call.along(call.inputs[0], -1), "affine", "scale")
    ...     return call.inputs[0]
    """

    def register(function: Rule) -> Rule:
        edit = _set_width(width) if width is not None else resize
        RULES.update(dict.fromkeys(layer_classes, LayerRule(function, edit, rearrange, rescale)))
        return function

    return register


def _set_width(name: str) -> Resize:
    def edit(call: Call, config: dict[str, Any], alive: Alive) -> None:
        if call.bindings:  # none where the rule gave up
            config[name] = count_alive(call.outputs[0], alive)

    return edit


def count_alive(channels: np.ndarray, alive: Alive) -> int:
    """Return how many of these channels stay.

    Args:
        channels: Channel numbers.
        alive: One bool per channel number.

    Returns:
        The count.

    Example:

    >>> count_alive(np.array([0, 2, 2]), np.array([True, True, False]))
    1
    """
    return int(alive[channels].sum())
