"""The layers of a model that can be decomposed, where they are called, and what they cost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import CONVOLUTIONS, Piece
from tfprune.graph import Node, find_rule, functional, nested, walk
from tfprune.graph.chains import Places, chains
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.graph.kinds import find_kind


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        times: How often the layer is applied, such as to each step of a sequence.
        inputs: The spatial sizes of what goes in.
        outputs: The spatial sizes of what comes out.
    """

    times: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def macs(self, pieces: Sequence[Piece]) -> int:
        """Return what layers cost that are called one after another for this call."""
        sizes, total = [*self.inputs], 0
        for piece in pieces:
            for axis in piece.axes:
                sizes[axis] = self.outputs[axis]
            total += math.prod(sizes) * math.prod(piece.shape)
        return self.times * total


@dataclass
class Site:
    """A layer that can be decomposed.

    Attributes:
        name: The layer's name, behind those of the models that it lies in.
        layer: The layer.
        calls: Its calls.
    """

    name: str
    layer: Any
    calls: list[Call] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the kernel, `(*window, inputs, outputs)`."""
        return tuple(self.layer.kernel.shape)

    @property
    def kernel(self) -> np.ndarray:
        """The kernel in float64."""
        return keras.ops.convert_to_numpy(self.layer.kernel).astype(np.float64)

    @property
    def whole(self) -> tuple[Piece, ...]:
        """The layer as a piece."""
        return (Piece(self.shape, tuple(range(len(self.shape) - 2))),)

    def macs(self, pieces: Sequence[Piece]) -> int:
        """Return the multiply-accumulates of pieces for one sample, in all calls.

        Where sizes are open they are those for one output position, so that pieces compare as they would for large
        inputs.
        """
        return sum(call.macs(pieces) for call in self.calls)

    def parameters(self, pieces: Sequence[Piece]) -> int:
        """Return how many weights the kernels of pieces have."""
        return sum(math.prod(piece.shape) for piece in pieces)


@dataclass
class Sites:
    """What of a model can be decomposed.

    Attributes:
        each: The layers, in the order of their calls.
        stays: For every other layer with a kernel, why it stays.
        opened: The models and layers (by id) that the layers lie in.
    """

    each: list[Site] = field(default_factory=list)
    stays: dict[str, str] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, model: keras.Model, exclude: Exclude = None) -> "Sites":
        """Find the layers.

        Args:
            model: A built Sequential, functional or subclassed model.
            exclude: Layers to leave alone.

        Raises:
            TypeError: If `model` is not a Keras 3 model, or `exclude` has another type.
            ValueError: If it is not built, or cannot be read layer by layer.
        """
        found, excluded, places = cls(), resolve_exclude(model, exclude), Places.of(model)
        known: dict[int, Site] = {}
        for path, node in _calls(model):
            layer = node.operation
            if not isinstance(layer, keras.layers.Layer) or not find_kind(layer).kernels:
                continue
            name = "/".join(each.name for each in (*path, layer))
            reason = "it is excluded" if excluded(layer) else refusal(layer, places)
            if reason:
                found.stays[name] = reason
                continue
            if id(layer) not in known:
                known[id(layer)] = Site(name, layer)
                found.opened |= {id(each) for each in path}
            known[id(layer)].calls.append(_call(node))
        found.each = [*known.values()]
        seen = {*found.stays, *(site.name for site in found.each)}
        for chain in chains(model):
            name = "/".join(layer.name for layer in chain)
            if find_kind(chain[-1]).kernels and name not in seen and id(chain[-1]) not in known:
                found.stays[name] = "it lies inside a layer that stays as it is"
        return found


def refusal(layer: Any, places: Places) -> str:
    """Return why a layer cannot be decomposed; empty if it can.

    Args:
        layer: A built layer.
        places: Where the variables of its model lie.
    """
    if type(layer) is not keras.layers.Dense and type(layer) not in CONVOLUTIONS:
        return f"a {type(layer).__name__} has no decomposition"
    if getattr(layer, "groups", 1) > 1:
        return f"it has {layer.groups} groups"
    own = [each for each in (layer.kernel, layer.bias) if each is not None]
    if {id(variable) for variable in layer.variables} != {id(variable) for variable in own}:
        return "it has more than a kernel and a bias, as quantized layers and those with LoRA do"
    if layer.kernel_constraint is not None:
        return "its kernel has a constraint, which says nothing about factors of it"
    if len({id(chain[-1]) for chain in places.of_variable.get(id(layer.kernel), [])}) > 1:
        return "it shares its kernel with another layer"
    return ""


def _calls(model: keras.Model, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Node]]:
    """All calls, also those inside models inside the model, with the models that they lie in."""
    for node in walk(functional(model)):
        inner = nested(node, own_sizes=True) if find_rule(node.operation) is None else None
        if inner is None:
            yield path, node
        else:
            yield from _calls(inner, (*path, node.operation))


def _call(node: Node) -> Call:
    shapes = node.input_shapes[0], node.output_shapes[0]
    if type(node.operation) is keras.layers.Dense:
        return Call(math.prod(size or 1 for size in shapes[1][:-1]), (), ())
    first = node.operation.data_format == "channels_first"
    inputs, outputs = (shape[1:] if first else shape[:-1] for shape in shapes)
    sizes = [
        (before, after) if before and after else (stride, 1)
        for before, after, stride in zip(inputs, outputs, node.operation.strides, strict=True)
    ]
    return Call(1, tuple(before for before, _ in sizes), tuple(after for _, after in sizes))
