"""A model run call by call, on all samples at each call, so that a layer can be changed before the rest is run."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.data import Batch
from tfprune.graph import Node, find_rule, functional, nested, walk
from tfprune.graph.calls import renewed

_LARGEST = 2**27
_FEWEST = 32

Batches = list[Any]
"""The values of one tensor, batch by batch."""


@dataclass(frozen=True)
class Moment:
    """What holds right before a call.

    Attributes:
        name: The names of the layers that lead to what is called.
        node: The call.
        values: For each tensor that is still to be read (by id), its values.
        readers: For each tensor of the graph that the call belongs to (by id), the calls that read it.
    """

    name: str
    node: Node
    values: dict[int, Batches]
    readers: dict[int, list[Node]]

    @property
    def inputs(self) -> Batches:
        """The values of the first input."""
        return self.values[id(self.node.inputs[0])]

    def reader(self, tensor: keras.KerasTensor) -> Node | None:
        """Return the one call that reads a tensor, or `None` if there are others or none."""
        found = self.readers.get(id(tensor), [])
        return found[0] if len(found) == 1 else None


def play(model: keras.Model, batches: list[Batch]) -> Iterator[Moment]:
    """Run a model at inference, and stop before every call of a layer that is not made of others.

    Each tensor is kept until its last reader is done: what lies between two layers, for all samples.

    Args:
        model: A built Sequential, functional or subclassed model.
        batches: The samples.

    Yields:
        The moments before the calls, in the order of the data; what is changed in a layer then holds for its call.
    """
    view = functional(model)
    columns = zip(*(keras.tree.flatten(batch.x) for batch in batches), strict=True)
    values = {
        id(tensor): [keras.ops.convert_to_tensor(array, dtype=tensor.dtype) for array in column]
        for tensor, column in zip(view.inputs, columns, strict=True)
    }
    yield from _play(view, values, "")


def affordable(model: keras.Model) -> int:
    """Return how many samples can run through a model side by side, so that no tensor takes over half a gigabyte.

    Example:

    >>> affordable(keras.Sequential([keras.Input((2**20,)), keras.layers.ReLU()]))
    128
    """
    largest = max((_numbers(node) for node in walk(functional(model))), default=1)
    return max(_FEWEST, _LARGEST // max(largest, 1))


def _numbers(node: Node) -> int:
    """How many numbers the outputs of a call hold for one sample; where sizes are open, of those that are known."""
    inner = nested(node) if find_rule(node.operation) is None else None
    inside = [_numbers(each) for each in walk(functional(inner))] if inner is not None else []
    return max([math.prod(size or 1 for size in shape) for shape in node.output_shapes] + inside)


def _play(view: keras.Model, values: dict[int, Batches], prefix: str) -> Iterator[Moment]:
    nodes = list(walk(view))
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        for key in {id(tensor): None for tensor in node.inputs}:
            readers.setdefault(key, []).append(node)
    waiting = Counter({key: len(found) for key, found in readers.items()})
    waiting.update(id(tensor) for tensor in view.outputs)
    for node in nodes:
        name = f"{prefix}{node.operation.name}"
        inner = nested(node) if find_rule(node.operation) is None else None
        if inner is None:
            yield Moment(name, node, values, readers)
            made = _called(node, values)
        else:
            graph = functional(inner)
            values |= {id(own): values[id(outer)] for own, outer in zip(graph.inputs, node.inputs, strict=True)}
            yield from _play(graph, values, f"{name}/")
            made = [values[id(tensor)] for tensor in graph.outputs]
        values |= {id(tensor): batches for tensor, batches in zip(node.outputs, made, strict=True)}
        for key in {id(tensor): None for tensor in node.inputs}:
            waiting[key] -= 1
            if not waiting[key]:
                del values[key]


def _called(node: Node, values: dict[int, Batches]) -> list[Batches]:
    """The outputs of a call, each batch by batch."""
    count = len(values[id(node.inputs[0])])
    rows = []
    for index in range(count):
        tensors = {id(tensor): values[id(tensor)][index] for tensor in node.inputs}
        args, kwargs = renewed((tuple(node.args), dict(node.kwargs)), tensors)
        rows.append(keras.tree.flatten(node.operation(*args, **kwargs)))
    return [list(column) for column in zip(*rows, strict=True)]


def array_of(tensor: Any) -> np.ndarray:
    """Return a tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(tensor)
