"""Which layers of a model make its outputs, and which are called more than once."""

from collections import Counter
from collections.abc import Sequence

import keras

from tfprune.graph import Node
from tfprune.graph.kinds import find_kind
from tfprune.graph.wiring import Wiring


def head_layers(model: keras.Model) -> set[int]:
    """Return the layers (by id) from which the outputs come without another kernel in between.

    Args:
        model: A built Sequential, functional or subclassed model.

    Example:

    >>> last = keras.layers.Dense(3)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), last, keras.layers.Softmax()])
    >>> head_layers(model) == {id(last)}
    True
    """
    wiring = Wiring.of(model)
    waiting, found = [*wiring.graphs[0][0].outputs], set[int]()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in wiring.makers:
            continue
        node, index = wiring.makers[id(tensor)]
        if id(node.operation) in wiring.views:
            waiting.append(wiring.views[id(node.operation)].outputs[index])
        elif find_kind(node.operation).kernels:
            found.add(id(node.operation))
        else:
            waiting += node.inputs
    return found


def shared_layers(model: keras.Model) -> set[int]:
    """Return the layers (by id) that are called more than once for one input, also because a model around them is.

    Args:
        model: A built Sequential, functional or subclassed model.

    Example:

    >>> layer, once = keras.layers.Dense(4), keras.layers.Dense(3)
    >>> shared_layers(keras.Sequential([keras.Input((4,)), layer, layer, once])) == {id(layer)}
    True
    """
    wiring, count = Wiring.of(model), Counter[int]()

    def add(nodes: Sequence[Node]) -> None:
        for node in nodes:
            count[id(node.operation)] += 1
            add(wiring.inside.get(id(node.operation), ()))

    add(wiring.graphs[0][1])
    return {key for key, calls in count.items() if calls > 1}
