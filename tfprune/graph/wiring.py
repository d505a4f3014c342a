"""Who makes and who reads each tensor of a model, across nested models and layers made of layers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from tfprune.graph.rules import find_rule
from tfprune.graph.walk import Node, functional, nested, walk


@dataclass
class Wiring:
    """The calls of a model and of all models inside it, each of them once however often it is called.

    A model inside a model has symbolic tensors of its own. They stand for other tensors at every call of it:

        graphs[0]   x ----> inner ----> y ----> inner ----> z      calls[inner]: two
        graphs[1]   a ----> Dense ----> b                          views[inner]: from a to b; calls[Dense]: one

    So what holds for `b`, such as being zero by its weights, holds for `y` and `z`; what holds for `x` says nothing of
    `a`. Whoever follows tensors backwards goes from `y` to `b` through `views`, if `inner` is called once, and stops at
    `a`.

    Attributes:
        graphs: The functional view of the model, then those of the models inside it, with their calls.
        nodes: All calls, each after those that it depends on; those inside a model before the call of that model.
        makers: For each tensor (by id), the call that makes it and which of its outputs it is.
        readers: For each tensor (by id), the calls that read it; `None` where it leaves its graph as an output.
        calls: For each layer (by id), its calls.
        views: For each nested model or layer made of layers (by id), the functional model that it stands for.
        inside: For each of them, its own calls.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> wiring = Wiring.of(keras.Sequential([keras.Input((2,)), layer, keras.layers.ReLU(), layer]))
    >>> [type(node.operation).__name__ for node in wiring.nodes], len(wiring.calls[id(layer)])
    (['Dense', 'ReLU', 'Dense'], 2)
    """

    graphs: list[tuple[keras.Model, list[Node]]] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    makers: dict[int, tuple[Node, int]] = field(default_factory=dict)
    readers: dict[int, list[Node | None]] = field(default_factory=dict)
    calls: dict[int, list[Node]] = field(default_factory=dict)
    views: dict[int, keras.Model] = field(default_factory=dict)
    inside: dict[int, list[Node]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model, opened: Callable[[Node], keras.Model | None] | None = None) -> "Wiring":
        """Return the wiring of a model.

        Args:
            model: A built Sequential, functional or subclassed Keras model.
            opened: The model that a call stands for, or `None` for a layer that stays closed; by default whatever can
                be read and has no rule.

        Raises:
            TypeError: If `model` is not a Keras 3 model.
            ValueError: If it is not built, or cannot be read layer by layer.
        """
        wiring = cls()
        wiring._enter(model, opened or _readable)
        return wiring

    def _enter(self, model: keras.Model, opened: Callable[[Node], keras.Model | None]) -> list[Node]:
        graph, own = functional(model), list[Node]()
        self.graphs.append((graph, own))
        for node in walk(graph):
            self.calls.setdefault(id(node.operation), []).append(node)
            inner = opened(node)
            if inner is not None and id(node.operation) not in self.views:
                self.views[id(node.operation)] = inner
                self.inside[id(node.operation)] = self._enter(inner, opened)
            own.append(node)
            self.nodes.append(node)
            for tensor in node.inputs:
                self.readers.setdefault(id(tensor), []).append(node)
            self.makers.update((id(tensor), (node, index)) for index, tensor in enumerate(node.outputs))
        for tensor in graph.outputs:
            self.readers.setdefault(id(tensor), []).append(None)
        return own


def _readable(node: Node) -> keras.Model | None:
    return nested(node) if find_rule(node.operation) is None else None


def is_addition(operation: keras.Operation) -> bool:
    """Return whether a layer or operation adds its inputs up: `keras.layers.Add` or `x + y`.

    Args:
        operation: What a `Node` calls.

    Returns:
        Whether it does.

    Example:

    >>> is_addition(keras.layers.Add()), is_addition(keras.layers.Multiply())
    (True, False)
    """
    kind = type(operation)
    # The class behind `x + y` has the same name, and Keras does not export it.
    return kind is keras.layers.Add or (kind.__name__ == "Add" and kind.__module__.startswith("keras."))
