"""Dropout of a pruned model: fewer connections need less of it."""

import math
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.graph import Node, is_graph, nested
from tfprune.graph.chains import chains
from tfprune.graph.kinds import find_kind
from tfprune.graph.wiring import Wiring
from tfprune.rewriting.engine import Rewriter
from tfprune.training.masks import living_weights

L = keras.layers
_KINDS = (L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D)


def adjust_dropout(model: keras.Model, small: keras.Model) -> keras.Model:
    """Return a copy of a pruned model whose dropout rates suit the connections that are left.

    A smaller model overfits less, and a rate that was right for the larger one holds it back. Each rate becomes that of
    the original times the square root of the connections that are left, as a fraction: the square root because
    connections grow with the square of the number of neurons. Those are counted that read what is dropped: the
    living weights of the next layers with a kernel, behind activations, pooling, normalization and additions.

    `Dropout` and `SpatialDropout` layers are found in both models by their names. Rates always come from the original,
    so that it may be called after every round of pruning.

    Reference: Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015,
    https://arxiv.org/abs/1506.02626

    Args:
        model: The original model, with the rates it was trained with. All weights of its kernels are counted, so that
            after pruning single weights it may be `small` itself, if the rates are still those of the original.
        small: The pruned model; it is not changed.

    Returns:
        A copy of `small` with other rates, compiled like it. Where nothing with a kernel reads what is dropped, the
        rate is the original one.

    Raises:
        TypeError: If one of them is not a Keras 3 model.
        ValueError: If one is not built or cannot be read layer by layer, or they have no dropout layer in common.

    Example:

    >>> def net(width):
    ...     hidden = [L.Dense(width, name="hidden"), L.Dropout(0.5, name="drop"), L.Dense(4, name="classes")]
    ...     return keras.Sequential([keras.Input((3,)), *hidden])
    >>> adjust_dropout(net(16), net(4)).get_layer("drop").rate  # a quarter of the connections
    0.25
    """
    before, after = _Dropouts(model), _Dropouts(small)
    common = before.layers.keys() & after.layers.keys()
    if not common:
        raise ValueError(
            f"{model.name!r} has the dropout layers {[*before.layers]}, and {small.name!r} has {[*after.layers]}: none "
            "in common, so there is no rate to adjust. Give the model that the small one was pruned from."
        )
    rates = {}
    for name in common:
        old, now = before.layers[name], after.layers[name]
        had = sum(math.prod(kernel.shape) for kernel in before.kernels(old))
        left = sum(int(living_weights(kernel).sum()) for kernel in after.kernels(now))
        rates[id(now)] = old.rate * math.sqrt(left / had) if had else old.rate
    return _WithRates(rates, after.opened).rewrite(small)


class _Dropouts:
    """The dropout layers of a model, by their names behind those of the models that they lie in."""

    def __init__(self, model: keras.Model) -> None:
        self._wiring = Wiring.of(model)
        self.layers: dict[str, Any] = {}
        self.opened: set[int] = set()
        for chain in chains(model):
            if type(chain[-1]) in _KINDS and id(chain[-1]) in self._wiring.calls:
                self.layers["/".join(layer.name for layer in chain)] = chain[-1]
                self.opened |= {id(layer) for layer in chain[:-1]}

    def kernels(self, dropout: Any) -> list[keras.Variable]:
        """The kernels that read what a layer drops, each once."""
        seen: set[int] = set()
        found = {
            id(kernel): kernel
            for node in self._wiring.calls[id(dropout)]
            for kernel in self._behind(node.outputs[0], seen)
        }
        return [*found.values()]

    def _behind(self, tensor: keras.KerasTensor, seen: set[int]) -> Iterator[keras.Variable]:
        if id(tensor) in seen:
            return
        seen.add(id(tensor))
        for reader in self._wiring.readers.get(id(tensor), []):
            yield from [*self._own_kernels(reader)] or self._further(reader, tensor, seen)

    def _own_kernels(self, reader: Node | None) -> Iterator[keras.Variable]:
        if reader is None or id(reader.operation) in self._wiring.views:
            return
        operation = reader.operation
        inside = [chain[-1] for chain in chains(operation)] if isinstance(operation, L.Layer) else []
        for layer in (operation, *inside):
            held = (axes.of(layer) for axes in find_kind(layer).kernels)
            yield from (kernel for kernel in held if kernel is not None)

    def _further(self, reader: Node | None, tensor: keras.KerasTensor, seen: set[int]) -> Iterator[keras.Variable]:
        """What lies behind a call that multiplies nothing: behind it, inside it, or behind the model it ends."""
        if reader is None:
            outer = [
                node.outputs[index]
                for key, view in self._wiring.views.items()
                for index, output in enumerate(view.outputs)
                if output is tensor
                for node in self._wiring.calls[key]
            ]
        elif id(reader.operation) in self._wiring.views:
            inner = self._wiring.views[id(reader.operation)].inputs
            outer = [own for own, given in zip(inner, reader.inputs, strict=True) if given is tensor]
        else:
            outer = [*reader.outputs]
        for each in outer:
            yield from self._behind(each, seen)


class _WithRates(Rewriter):
    """Gives dropout layers (by id) other rates."""

    def __init__(self, rates: dict[int, float], opened: set[int]) -> None:
        super().__init__()
        self._rates, self._opened = rates, opened

    def opened(self, node: Node) -> keras.Model | None:
        """Return the models that dropout layers lie in, and all others that are plain graphs."""
        if id(node.operation) in self._opened:
            return nested(node)
        return node.operation if is_graph(node.operation) else None

    def copy(self, layer: Any) -> Any:
        """Return the copy of a layer, of a dropout layer with its new rate."""
        changes = {"rate": self._rates[id(layer)]} if id(layer) in self._rates else {}
        return self.copies.of(layer, **changes)
