"""Attention: heads, the width of values, and the features that queries and keys are compared by.

They are independent axes of the projections' kernels, so what stays is again a full array. A head is dead when its
values are; its queries and keys follow. A feature is made by the queries and read by the keys. Scores are divided
by the root of the number of features, so the queries are rescaled when some go.
"""

import math
from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import on_axis
from tfprune.graph.rules.registry import Alive, count_alive, rule
from tfprune.graph.walk import Node

layers = keras.layers

_ARGUMENTS = ("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask")


def attention_arguments(node: Node) -> dict[str, Any]:
    """Return the query, value and key of a call of an attention layer, and its masks if it is given any.

    Args:
        node: The call.

    Returns:
        The arguments by name; the key is there even if it is the value.
    """
    given = {**dict(zip(_ARGUMENTS, node.args, strict=False)), **node.kwargs}
    arguments = {name: given[name] for name in _ARGUMENTS if given.get(name) is not None}
    return {"key": arguments["value"], **arguments}


def projections(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Return the projections of an attention layer: query, key, value, output and, if it has one, gate.

    Args:
        layer: A `MultiHeadAttention` or `GroupQueryAttention` layer.

    Returns:
        The layers inside, by name.
    """
    # Private: grouped attention has no public names for them, and neither layer has one for the gate.
    # tests/graph/test_rules_attention.py fails when they move.
    names = ("query", "key", "value", "output", *(("gate",) if hasattr(layer, "_gate_dense") else ()))
    return {name: getattr(layer, f"_{name}_dense") for name in names}


def _rescale(call: Call, alive: Alive) -> dict[int, float]:
    query = projections(call.layer)["query"]
    features = call.bound(query.kernel, 2)
    if features is None:
        return {}
    factor = math.sqrt(count_alive(features, alive) / len(features))
    return {id(variable): factor for variable in query.variables}


def _resize_multi_head(call: Call, config: dict[str, Any], alive: Alive) -> None:
    parts = projections(call.layer)
    if not call.bindings:
        return
    config["num_heads"] = _count(call, parts["value"], 1, alive)
    config["value_dim"] = _count(call, parts["value"], 2, alive)
    config["key_dim"] = _count(call, parts["query"], 2, alive)
    if len(parts["output"].kernel.shape) == 3:
        made = _count(call, parts["output"], 2, alive)
        # Without output_shape, Keras takes the width of the query, which may lose other channels.
        if config["output_shape"] or made != _count(call, parts["query"], 0, alive):
            config["output_shape"] = (made,)


def _resize_grouped(call: Call, config: dict[str, Any], alive: Alive) -> None:
    parts = projections(call.layer)
    if call.bindings:
        config["num_query_heads"] = _count(call, parts["query"], 1, alive)
        config["num_key_value_heads"] = _count(call, parts["value"], 1, alive)
        config["head_dim"] = _count(call, parts["value"], 2, alive)


def _count(call: Call, part: keras.layers.Layer, axis: int, alive: Alive) -> int:
    channels = call.bound(part.kernel, axis)
    return part.kernel.shape[axis] if channels is None else count_alive(channels, alive)


@rule(layers.MultiHeadAttention, resize=_resize_multi_head, rescale=_rescale)
def _multi_head(call: Call) -> np.ndarray | list[np.ndarray]:
    parts = projections(call.layer)
    if not _is_plain(parts):
        return call.give_up(f"a kernel of {call.layer.name!r} is not a plain variable (LoRA or quantized)")
    _read_inputs(call, parts)
    heads = call.produce(parts["value"].kernel, 1, part="heads")
    width = call.produce(parts["value"].kernel, 2, part="value_dim")
    features = call.produce(parts["query"].kernel, 2, part="key_dim")
    return _attend(call, parts, heads, width, features)


@rule(layers.GroupQueryAttention, resize=_resize_grouped, rescale=_rescale)
def _grouped(call: Call) -> np.ndarray | list[np.ndarray]:
    """Key-value heads go with all their queries; one size, `head_dim`, holds for queries, keys and values."""
    parts = projections(call.layer)
    if not _is_plain(parts):
        return call.give_up(f"a kernel of {call.layer.name!r} is not a plain variable (LoRA or quantized)")
    inputs = _read_inputs(call, parts)
    call.tie(inputs["query"], inputs["value"])  # Keras wants them equally wide
    heads = call.produce(parts["value"].kernel, 1, part="heads")
    width = call.produce(parts["value"].kernel, 2, part="head_dim")
    call.bind(parts["query"].kernel, 2, width, "producer", part="head_dim")
    leaving = _attend(call, parts, heads, width, width)
    call.tie(leaving[0], inputs["query"])  # the output is as wide as the query; there is no setting for it
    return leaving


def _is_plain(parts: dict[str, keras.layers.Layer]) -> bool:
    return all(part.kernel is part.variables[0] for part in parts.values())


def _read_inputs(call: Call, parts: dict[str, keras.layers.Layer]) -> dict[str, np.ndarray]:
    """Bind the input features of every projection, and freeze masks that are tensors of the model."""
    arguments = attention_arguments(call.node)
    channels = {id(tensor): each for tensor, each in zip(call.node.inputs, call.inputs, strict=True)}
    inputs = {
        name: call.along(channels[id(arguments[name])], -1, arguments[name].shape[-1])
        for name in ("query", "key", "value")
    }
    for name, part in parts.items():
        if name != "output":
            call.bind(part.kernel, 0, inputs["query" if name == "gate" else name], "consumer")
    for name in _ARGUMENTS[3:]:
        if id(arguments.get(name)) in channels:
            call.freeze(channels[id(arguments[name])], f"{call.layer.name!r} reads it as a mask")
    return inputs


def _attend(
    call: Call,
    parts: dict[str, keras.layers.Layer],
    heads: np.ndarray,
    width: np.ndarray,
    features: np.ndarray,
) -> list[np.ndarray]:
    queries = np.repeat(heads, parts["query"].kernel.shape[1] // len(heads))
    for name, each in (("query", queries), ("key", heads), ("gate", queries)):
        if name in parts:
            _bind_both(call, parts[name], 1, each, "statistics")
    if "gate" in parts:
        _bind_both(call, parts["gate"], 2, width, "statistics")
    call.bind(parts["query"].bias, 1, features, "affine", "shift")
    _bind_both(call, parts["key"], 2, features, "consumer")
    call.bind(parts["value"].bias, 0, heads, "affine", "shift")
    call.bind(parts["value"].bias, 1, width, "affine", "shift")
    call.bind(parts["output"].kernel, 0, queries, "consumer")
    call.bind(parts["output"].kernel, 1, width, "consumer")
    _freeze_seen_heads(call, heads)
    return [_make_output(call, parts["output"]), *call.opaque(f"{call.layer.name!r} gives out its scores")[1:]]


def _bind_both(call: Call, part: keras.layers.Layer, axis: int, channels: np.ndarray, role: Any) -> None:
    """Bind an axis of a projection's kernel, and the same one of its bias."""
    call.bind(part.kernel, axis, channels, role)
    call.bind(part.bias, axis - 1, channels, role)


def _freeze_seen_heads(call: Call, heads: np.ndarray) -> None:
    """Heads stay where somebody sees them one by one."""
    mask = attention_arguments(call.node).get("attention_mask")
    if mask is not None and len(mask.shape) > 3:
        call.freeze(heads, f"{call.layer.name!r} has a mask for every head")
    if len(call.output_shapes) > 1:
        call.freeze(heads, f"{call.layer.name!r} gives out its scores")


def _make_output(call: Call, output: keras.layers.Layer) -> np.ndarray:
    if len(output.kernel.shape) > 3:
        return call.opaque(f"{call.layer.name!r} makes outputs along several axes")[0]
    made = call.produce(output.kernel, 2)
    call.bind(output.bias, 0, made, "affine", "shift")
    return on_axis(made, -1, rank=len(call.output_shapes[0]))
