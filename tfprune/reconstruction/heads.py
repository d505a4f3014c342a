"""The layers that make the outputs of a model."""

import keras

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
    waiting, found = [*wiring.graphs[0][0].outputs], set()
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
