"""Find residual branches: what is added to a shortcut, and could be left out."""

from collections.abc import Iterator

import keras

from tfprune.graph import Node
from tfprune.graph.wiring import Wiring, is_addition


def residual_branches(wiring: Wiring) -> Iterator[tuple[Node, int]]:
    """Find every addition of a shortcut and a branch.

    Both come from one tensor. The shortcut is that tensor, or passes at most one layer with a kernel (a projection);
    the branch passes more, and nothing of it is read elsewhere.

    Args:
        wiring: The wiring of a model.

    Yields:
        The call that adds, and which of its two inputs is the branch.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = keras.layers.Dense(4)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, branch]))
    >>> [(node.operation.name, index) for node, index in residual_branches(Wiring.of(model))]
    [('add', 1)]
    """
    for graph, nodes in wiring.graphs:
        ancestry = _Ancestry(graph, nodes, wiring)
        for node in nodes:
            if is_addition(node.operation) and len(node.inputs) == 2:
                found = [index for index in (0, 1) if ancestry.is_branch(node, index)]
                yield from ((node, index) for index in found)


class _Ancestry:
    """For each tensor of a graph, the tensors that it is computed from, as the bits of one number."""

    def __init__(self, graph: keras.Model, nodes: list[Node], wiring: Wiring) -> None:
        self._wiring = wiring
        self._number: dict[int, int] = {}
        self._sources: list[int] = []
        self._kernels = 0
        for tensor in graph.inputs:
            self._add(tensor, 0)
        for node in nodes:
            sources = 0
            for tensor in node.inputs:
                sources |= self._sources[self._number[id(tensor)]]
            for tensor in node.outputs:
                self._add(tensor, sources)
            if any(len(weight.shape) > 1 for weight in getattr(node.operation, "weights", ())):
                self._kernels |= 1 << self._number[id(node.outputs[0])]
        self._tensors = {number: tensor for tensor, number in self._number.items()}

    def is_branch(self, node: Node, index: int) -> bool:
        """Whether this input of an addition is the branch, and the other one the shortcut."""
        branch, shortcut = (self._sources[self._number[id(node.inputs[i])]] for i in (index, 1 - index))
        common = branch & shortcut
        if not common or any(tensor.shape != node.outputs[0].shape for tensor in node.inputs):
            return False
        before = self._sources[common.bit_length() - 1]  # the last tensor that both come from, and its own sources
        own, passed = branch & ~before, shortcut & ~before
        kernels = [(each & self._kernels).bit_count() for each in (own, passed)]
        return not own & passed and kernels[1] <= 1 and kernels[0] > kernels[1] and self._is_closed(own, node)

    def _add(self, tensor: keras.KerasTensor, sources: int) -> None:
        self._number[id(tensor)] = len(self._sources)
        self._sources.append(sources | 1 << len(self._sources))

    def _is_closed(self, region: int, end: Node) -> bool:
        """Whether nothing but `end` reads these tensors from outside."""
        inside = (number for number in range(region.bit_length()) if region >> number & 1)
        readers = [reader for number in inside for reader in self._wiring.readers.get(self._tensors[number], ())]
        return all(
            reader is not None
            and (reader is end or all(region >> self._number[id(tensor)] & 1 for tensor in reader.outputs))
            for reader in readers
        )
