"""Layers of the user's that have no rule, read by the operations that their `call` makes, and kept whole.

`call` is run on symbolic tensors in a twin of the layer, whose variables are symbolic tensors too. What comes out is a
graph of operations, each of which has a rule. A variable joins in where it is added to a tensor or multiplied by it:

    x      (4, 4, 16) --[Multiply]--> (4, 4, 16)      gamma is bound along its axis to the 16 channels of x
    gamma  (16,) -------'

The layer comes back as one of its class; `tfprune.graph.narrower` finds out how it is made for fewer channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import keras

from tfprune.graph.calls import nodes_in_order
from tfprune.graph.chains import children
from tfprune.graph.subclassed import first_line, run_on_symbols, signature
from tfprune.graph.walk import Node


class NotFollowedError(ValueError):
    """A `call` does something to channels that is not followed."""


@dataclass(frozen=True)
class WholeLayer:
    """What the `call` of a layer does at inference.

    Attributes:
        nodes: The operations, each after those that it depends on.
        inputs: What stands for the tensors that go in.
        outputs: What stands for those that come out.
        variables: For each symbolic tensor (by id) that stands for a variable, the variable.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    variables: Mapping[int, keras.Variable]


_WHOLE: "WeakKeyDictionary[keras.layers.Layer, dict[str, WholeLayer | str]]" = WeakKeyDictionary()


def read_whole(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> WholeLayer:
    """Return the operations that a layer makes whose weights are all its own.

    Args:
        layer: A built layer.
        args: The positional arguments of a call, with symbolic tensors.
        kwargs: The keyword arguments.

    Returns:
        The operations.

    Raises:
        NotFollowedError: If layers inside the layer have weights, or its `call` cannot be run on symbolic tensors.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.gamma = self.add_weight(shape=(shape[-1],))
    ...     def call(self, x):
    ...         return x * self.gamma
    >>> layer, x = Scale(), keras.Input((4,))
    >>> y = layer(x)
    >>> [type(node.operation).__name__ for node in read_whole(layer, (x,), {}).nodes]
    ['Multiply']
    """
    known = _WHOLE.setdefault(layer, {})
    called = signature((args, dict(kwargs)))
    if called not in known:
        try:
            known[called] = _read(layer, args, kwargs)
        except Exception as error:  # whatever a user's call raises on symbolic tensors
            known[called] = first_line(error)
    found = known[called]
    if isinstance(found, str):
        raise NotFollowedError(found)
    return found


def _read(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> WholeLayer:
    if any(inner.weights for inner in children(layer)):
        raise NotFollowedError("layers inside it have weights, and it is not made of layers alone")
    inputs: list[keras.KerasTensor] = []

    def renewed(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        inputs.append(keras.Input(batch_shape=value.shape, dtype=value.dtype, name=f"{layer.name}_{len(inputs)}"))
        return inputs[-1]

    given, named = keras.tree.map_structure(renewed, (tuple(args), dict(kwargs)))
    named.pop("training", None)
    symbols = {id(variable): _symbol(layer, number) for number, variable in enumerate(layer.variables)}
    outputs = keras.tree.flatten(run_on_symbols(_twin(layer, symbols), given, named))
    graph = keras.Model([*inputs, *symbols.values()], outputs, name=layer.name)
    nodes = tuple(
        Node(each.operation, tuple(each.input_tensors), tuple(each.outputs), each.arguments.args, each.arguments.kwargs)
        for each in nodes_in_order(graph)
    )
    held = {id(symbols[id(variable)]): variable for variable in layer.variables}
    return WholeLayer(nodes, tuple(inputs), tuple(outputs), held)


def _symbol(layer: Any, number: int) -> keras.KerasTensor:
    variable = layer.variables[number]
    dtype = layer.compute_dtype if keras.backend.is_float_dtype(variable.dtype) else variable.dtype
    return keras.Input(batch_shape=tuple(variable.shape), dtype=dtype, name=f"{layer.name}_variable_{number}")


def _twin(layer: Any, symbols: Mapping[int, keras.KerasTensor]) -> Any:
    """An object that has all that a layer has, with symbolic tensors in the place of its variables."""

    def symbolic(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return symbols.get(id(value), value)
        if isinstance(value, (list, tuple)) and any(isinstance(each, keras.Variable) for each in value):
            return [symbolic(each) for each in value]
        if isinstance(value, dict) and any(isinstance(each, keras.Variable) for each in value.values()):
            return {key: symbolic(each) for key, each in value.items()}
        return value

    twin = object.__new__(type(layer))
    # Past `__setattr__`, which would track them.
    twin.__dict__.update({name: symbolic(value) for name, value in vars(layer).items()})
    return twin
