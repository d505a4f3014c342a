"""Put scaling factors into a model that exists."""

from collections.abc import Callable, Sequence
from typing import Literal

import keras

from tfprune.graph import Node, analyse, functional
from tfprune.graph.exclude import resolve_exclude
from tfprune.graph.residual import residual_branches
from tfprune.graph.wiring import Wiring
from tfprune.layers.scaling_factor import Per, ScalingFactor
from tfprune.rewriting.cloning import duplicate
from tfprune.rewriting.edits import Edit

Where = Literal["blocks", "channels"] | Sequence[keras.layers.Layer] | Callable[[keras.layers.Layer], bool]


def with_scaling_factors(model: keras.Model, where: Where = "blocks", *, per: Per | None = None) -> keras.Model:
    """Return a copy of a model with `ScalingFactor` layers in it, which computes the same until they are trained.

    - `"blocks"`: one factor at the end of every residual branch, before it is added to its shortcut, so that whole
      blocks can go. The shortcut is the identity or a projection; the branch is the longer way.
    - `"channels"`: one factor per channel behind every layer that alone makes channels which may go (the free groups
      of `tfprune.channel_groups`), behind its BatchNormalization if one follows. Channels that several layers make
      together, across a residual addition, get none: they could go only where all factors meet at zero.
    - A list of layers, or a function from a layer to True: behind these layers. A nested model, wrapper or custom layer
      gets one factor behind it, not behind the layers inside it.

    A factor is named after the addition or layer that it belongs to, with `"_factor"`. Layer names, data types and
    compile settings are kept, with a fresh optimizer. The model itself is not changed.

    Reference: Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
    https://arxiv.org/abs/1707.01213

    Args:
        model: A built Sequential, functional or subclassed Keras model.
        where: Where the factors go; see above.
        per: `"block"` for one factor for the whole tensor, `"channel"` for one per channel. By default the latter for
            `where="channels"`, and one for the whole tensor elsewhere.

    Returns:
        A new model of the same class. A subclassed model comes back as a functional one, as from `tfprune.shrink`.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `where` is none of these.
        ValueError: If it is not built or cannot be read layer by layer, `where` finds nothing, or a layer in it is
            not part of the model or has several outputs.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = keras.layers.Dense(4)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, branch]))
    >>> [layer.name for layer in with_scaling_factors(model).layers if isinstance(layer, ScalingFactor)]
    ['add_factor']
    """
    wiring = Wiring.of(model)
    per = per or ("channel" if where == "channels" else "block")
    factors = _Factors(model, per)
    if isinstance(where, str):
        if where not in ("blocks", "channels"):
            raise ValueError(
                f"where must be 'blocks', 'channels', a list of layers or a function. Received: {where!r}."
            )
        places = _behind_blocks(wiring, factors) if where == "blocks" else _behind_channels(model, wiring, factors)
    else:
        places = _behind_chosen(model, wiring, where, factors)
    if not places:
        raise ValueError(
            f"where={where!r} finds no place for a scaling factor in {model.name!r} that has none yet. Give a list of "
            "layers to put them behind, such as [model.get_layer(name)]."
        )
    return duplicate(model, analyse(model), places)[0]


Places = dict[int, Edit]
"""For calls (by `Node.key`), what is added to them."""


class _Factors:
    """Makes factors, each with a name of its own."""

    def __init__(self, model: keras.Model, per: Per) -> None:
        self._taken = {layer.name for layer in functional(model).layers}
        self._per = per

    def behind(self, layer: keras.layers.Layer) -> ScalingFactor:
        name = base = f"{layer.name}_factor"
        count = 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return ScalingFactor(self._per, name=name, dtype=getattr(layer, "dtype_policy", None))


def _behind_blocks(wiring: Wiring, factors: _Factors) -> Places:
    return {
        branch.node.key: Edit(before={branch.index: factors.behind(branch.node.operation)})
        for branch in residual_branches(wiring)
        if not _is_scaled(wiring, branch.node.inputs[branch.index])
    }


def _behind_channels(model: keras.Model, wiring: Wiring, factors: _Factors) -> Places:
    places: Places = {}
    for group in analyse(model).groups.free:
        if len(group.producers) > 1:
            continue
        layer = group.producers[0].layer
        calls = wiring.calls.get(id(layer), [])
        if len(calls) != 1 or len(calls[0].outputs) != 1 or getattr(layer, "data_format", None) == "channels_first":
            continue
        node = _normalization_behind(wiring, calls[0])
        if node.outputs[0].shape[-1] == group.size and not _already(wiring, node):
            places[node.key] = Edit(after=factors.behind(layer))
    return places


def _behind_chosen(model: keras.Model, wiring: Wiring, where: Where, factors: _Factors) -> Places:
    chosen = resolve_exclude(model, where, argument="where")
    places: Places = {}
    for node in wiring.nodes:
        if isinstance(node.operation, ScalingFactor) or not chosen.itself(node.operation) or _already(wiring, node):
            continue
        if len(node.outputs) != 1:
            raise ValueError(f"{node.operation.name!r} has {len(node.outputs)} outputs, so it cannot be scaled.")
        places[node.key] = Edit(after=factors.behind(node.operation))
    return places


def _normalization_behind(wiring: Wiring, node: Node) -> Node:
    readers = wiring.readers.get(id(node.outputs[0]), [])
    first = readers[0] if len(readers) == 1 else None
    is_norm = first is not None and isinstance(first.operation, keras.layers.BatchNormalization)
    return first if first is not None and is_norm and len(wiring.calls[id(first.operation)]) == 1 else node


def _is_scaled(wiring: Wiring, tensor: keras.KerasTensor) -> bool:
    maker = wiring.makers.get(id(tensor))
    return maker is not None and isinstance(maker[0].operation, ScalingFactor)


def _already(wiring: Wiring, node: Node) -> bool:
    readers = wiring.readers.get(id(node.outputs[0]), [])
    return bool(readers) and all(
        reader is not None and isinstance(reader.operation, ScalingFactor) for reader in readers
    )
