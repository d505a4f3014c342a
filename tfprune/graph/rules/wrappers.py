"""Wrappers: the rule of the layer inside does the work."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call, Rule
from tfprune.graph.rules.registry import Alive, find_rule, rule
from tfprune.graph.wrapped import inner_nodes

layers = keras.layers


def _resize_inner(call: Call, config: dict[str, Any], alive: Alive) -> None:
    for inner, key in zip(call.inner, ("layer", "backward_layer"), strict=False):
        config[key].pop("build_config", None)  # it holds the old input shape, and would build the copy with it
        known = find_rule(inner.layer)
        if known is not None and known.resize is not None:
            known.resize(inner, config[key]["config"], alive)


def _rescale_inner(call: Call, alive: Alive) -> dict[int, float]:
    factors: dict[int, float] = {}
    for inner in call.inner:
        known = find_rule(inner.layer)
        if known is not None and known.rescale is not None:
            factors.update(known.rescale(inner, alive))
    return factors


def _rule_of(layer: keras.layers.Layer) -> Rule | None:
    known = find_rule(layer)
    return known.trace if known is not None else None


@rule(layers.TimeDistributed, resize=_resize_inner, rescale=_rescale_inner)
def _time_distributed(call: Call) -> np.ndarray | list[np.ndarray]:
    (node,) = inner_nodes(call.node)
    for extra in call.inputs[1:]:
        call.freeze(extra, f"{call.layer.name!r} reads it as a mask")
    channels = call.inputs[0]
    call.tie(channels[:1], channels)
    inner = call.enter(node, [channels[0]], _rule_of(node.operation))
    return [each[None] for each in inner.outputs]


@rule(layers.SpectralNormalization, resize=_resize_inner, rescale=_rescale_inner)
def _spectral_normalization(call: Call) -> np.ndarray | list[np.ndarray]:
    (node,) = inner_nodes(call.node)
    inner = call.enter(node, call.inputs, _rule_of(node.operation))
    along = call.bound(call.layer.kernel, -1)
    if along is not None:
        call.bind(call.layer.vector_u, 1, along, "statistics")
    return inner.outputs


def _in_full(call: Call) -> np.ndarray:
    """The channels of an output with one number for each place on the last axis, also where they are not followed."""
    channels = call.outputs[0]
    return np.broadcast_to(channels, (*channels.shape[:-1], call.output_shapes[0][-1] or 1))


@rule(layers.Bidirectional, resize=_resize_inner, rescale=_rescale_inner)
def _bidirectional(call: Call) -> np.ndarray | list[np.ndarray]:
    layer = call.layer
    sizes = [getattr(each, "units", None) for each in (layer.forward_layer, layer.backward_layer)]
    if sizes[0] != sizes[1]:
        return call.give_up(f"{layer.name!r} has layers of different size")
    forward, backward = (call.enter(node, call.inputs, _rule_of(node.operation)) for node in inner_nodes(call.node))
    # Keras takes the shape of both from the forward layer, so units go in pairs.
    for first, second in zip(forward.outputs, backward.outputs, strict=True):
        call.tie(first, second)
    there, back = (_in_full(inner) for inner in (forward, backward))
    states = [*forward.outputs[1:], *backward.outputs[1:]]
    if layer.merge_mode == "concat":
        return [np.concatenate([there, back], axis=-1), *states]
    return [there, *states] if layer.merge_mode is not None else [there, back, *states]
