"""Find residual branches: what is added to a shortcut, and could be left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras

from tfprune.graph import Node
from tfprune.graph.wiring import Wiring, is_addition


@dataclass(frozen=True, eq=False)
class Branch:
    """What is added to a shortcut.

    Attributes:
        node: The call that adds.
        index: Which of its two inputs is the branch.
        nodes: The calls of the branch.
        shortcut: The calls of the shortcut; none if it is the tensor that the branch begins with.
    """

    node: Node
    index: int
    nodes: tuple[Node, ...]
    shortcut: tuple[Node, ...] = ()

    @property
    def projection(self) -> Node | None:
        """The call on the shortcut that has a kernel, if there is one: the shortcut alone is no identity then."""
        return next((node for node in self.shortcut if _has_kernel(node.operation)), None)


def residual_branches(wiring: Wiring) -> Iterator[Branch]:
    """Find every addition of a shortcut and a branch.

    Both come from one tensor. The shortcut is that tensor, or passes at most one layer with a kernel (a projection);
    the branch passes more, and nothing of it is read elsewhere.

    Args:
        wiring: The wiring of a model.

    Yields:
        The branches.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = keras.layers.Dense(4)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, branch]))
    >>> [(branch.node.operation.name, branch.index) for branch in residual_branches(Wiring.of(model))]
    [('add', 1)]
    """
    for graph, nodes in wiring.graphs:
        ancestry = _Ancestry(graph, nodes, wiring)
        for node in nodes:
            if is_addition(node.operation) and len(node.inputs) == 2:
                found = ((index, ancestry.branch(node, index)) for index in (0, 1))
                yield from (Branch(node, index, *nodes) for index, nodes in found if nodes)


class _Ancestry:
    """For each tensor of a graph, the tensors that it is computed from, as the bits of one number.

    Tensors are numbered in the order of the data; bit i of `sources` says that tensor i is among them, itself included:

        number   0          1          2            3          4
               image --> stem ---> conv_a ---> conv_b ---> (add)
                           |                               |
                           '-------------------------------'      the shortcut

        sources of the branch,   tensor 3:  0b1111
        sources of the shortcut, tensor 1:  0b0011
        common to both:                     0b0011   its highest bit is the last tensor before they part: the stem
        the branch's own:                   0b1100   without all that the stem comes from

    Were the common tensors no single line that ends there, as when two branches part from two tensors, some of them
    would be left over in both inputs; then neither is a branch. A set in one whole number makes each question about
    hundreds of tensors a single operation.
    """

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
            if _has_kernel(node.operation):
                self._kernels |= 1 << self._number[id(node.outputs[0])]
        self._tensors = {number: tensor for tensor, number in self._number.items()}

    def branch(self, node: Node, index: int) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
        """The calls of this input of an addition and of the other one, if they are branch and shortcut."""
        branch, shortcut = (self._sources[self._number[id(node.inputs[i])]] for i in (index, 1 - index))
        common = branch & shortcut
        if not common or any(tensor.shape != node.outputs[0].shape for tensor in node.inputs):
            return None
        before = self._sources[common.bit_length() - 1]  # of the last tensor that both come from
        own, passed = branch & ~before, shortcut & ~before
        kernels = [(each & self._kernels).bit_count() for each in (own, passed)]
        longer = not own & passed and kernels[1] <= 1 and kernels[0] > kernels[1]
        return (self._makers(own), self._makers(passed)) if longer and self._is_closed(own, node) else None

    def _add(self, tensor: keras.KerasTensor, sources: int) -> None:
        self._number[id(tensor)] = len(self._sources)
        self._sources.append(sources | 1 << len(self._sources))

    def _is_closed(self, region: int, end: Node) -> bool:
        """Whether nothing but `end` reads these tensors from outside."""
        readers = [reader for tensor in self._within(region) for reader in self._wiring.readers.get(tensor, ())]
        return all(
            reader is not None
            and (reader is end or all(region >> self._number[id(tensor)] & 1 for tensor in reader.outputs))
            for reader in readers
        )

    def _makers(self, region: int) -> tuple[Node, ...]:
        found = (self._wiring.makers[tensor][0] for tensor in self._within(region))
        return tuple({id(node): node for node in found}.values())

    def _within(self, region: int) -> Iterator[int]:
        return (self._tensors[number] for number in range(region.bit_length()) if region >> number & 1)


def _has_kernel(operation: keras.Operation) -> bool:
    return any(len(weight.shape) > 1 for weight in getattr(operation, "weights", ()))
