"""A copy of a model in which some layers are several."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import Piece
from tfprune.decomposition.fitting import Fitted
from tfprune.graph import Node, is_graph, nested
from tfprune.graph.chains import chains
from tfprune.rewriting.engine import Rewriter

L = keras.layers
_DEPTHWISE = {L.Conv1D: L.DepthwiseConv1D, L.Conv2D: L.DepthwiseConv2D}


class Replacer(Rewriter):
    """Puts pieces in the place of layers. The last one keeps the name, and has the bias and the activation.

    Args:
        model: The model that is copied.
        fitted: What takes the place of layers, by their ids.
        opened: The models and layers (by id) that these lie in.
    """

    def __init__(self, model: keras.Model, fitted: Mapping[int, Fitted], opened: set[int]) -> None:
        super().__init__()
        self._fitted, self._opened = fitted, opened
        self._taken = {chain[-1].name for chain in chains(model)}

    def opened(self, node: Node) -> keras.Model | None:
        """Return the models that layers lie in which are replaced, and all others that are plain graphs."""
        if id(node.operation) in self._opened:
            return nested(node)
        return node.operation if is_graph(node.operation) else None

    def parts(self, layer: Any) -> Sequence[Any]:
        """Return the pieces of a layer, the same at each of its calls."""
        made = self._fitted.get(id(layer))
        if made is None:
            return super().parts(layer)
        parts: Sequence[Any] = self.copies.once(("parts", id(layer)), lambda: self._made(layer, made))
        return parts

    def _made(self, layer: Any, made: Fitted) -> list[Any]:
        *first, (last, kernel) = zip(made.pieces, made.factors, strict=True)
        weights = [kernel] if layer.bias is None else [kernel, layer.bias.numpy() + made.shift]
        changes = {**geometry(layer, last), "name": layer.name}
        return [
            *(self._inner(layer, piece, factor) for piece, factor in first),
            self.copies.new(layer, weights, **changes),
        ]

    def _inner(self, layer: Any, piece: Piece, kernel: np.ndarray) -> Any:
        changes = {**geometry(layer, piece), "name": self._name(f"{layer.name}_factor")}
        if piece.depthwise:
            own = {"trainable": layer.trainable, "dtype": layer.dtype_policy, "data_format": layer.data_format}
            penalty = {"depthwise_regularizer": layer.kernel_regularizer}
            return self.copies.new(_DEPTHWISE[type(layer)](use_bias=False, **changes, **own, **penalty), [kernel])
        plain = {"use_bias": False, "activation": "linear"}
        plain |= {"bias_regularizer": None, "bias_constraint": None, "activity_regularizer": None}
        return self.copies.new(layer, [kernel], **changes, **plain)

    def _name(self, base: str) -> str:
        """A name that no layer of the model has."""
        names = itertools.chain([base], (f"{base}_{count}" for count in itertools.count(2)))
        name = next(each for each in names if each not in self._taken)
        self._taken.add(name)
        return name


def geometry(layer: Any, piece: Piece) -> dict[str, Any]:
    """Return the arguments with which a piece of a layer has its shape and lies where it should.

    Args:
        layer: The layer.
        piece: The piece.

    Example:

    >>> layer = keras.layers.Conv2D(4, (3, 5), strides=(1, 2), padding="same")
    >>> geometry(layer, Piece((1, 5, 8, 4), (1,)))["strides"], geometry(layer, Piece((3, 1, 2, 8), (0,)))["strides"]
    ((1, 2), (1, 1))
    """
    if isinstance(layer, keras.layers.Dense):
        return {"units": piece.shape[-1]}
    sizes = {"kernel_size": piece.shape[:-2]}
    for name in ("strides", "dilation_rate"):
        sizes[name] = tuple(each if axis in piece.axes else 1 for axis, each in enumerate(getattr(layer, name)))
    made = {"depth_multiplier": 1} if piece.depthwise else {"filters": piece.shape[-1]}
    return {**sizes, **made, "padding": layer.padding if piece.axes else "valid"}
