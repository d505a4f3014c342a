"""Follow every channel of a model from the weights that make it to the weights that read it."""

from collections.abc import Callable, Mapping

import keras
import numpy as np

from tfprune.graph.record import Call, Rule, Trace
from tfprune.graph.subclassed import raw_variables
from tfprune.graph.walk import Node, functional, nested, walk

MODEL_INPUT = "model input"
MODEL_OUTPUT = "model output"

FindRule = Callable[[keras.Operation], Rule | None]


def trace(
    model: keras.Model, find_rule: FindRule, approximate: bool = False, cut: Mapping[int, np.ndarray] | None = None
) -> Trace:
    """Trace every channel of `model`.

    Args:
        model: A built Sequential or functional model.
        find_rule: Gives the rule that says what a layer does to channels. A layer for which it gives `None`
            freezes the channels that it touches.
        approximate: Whether layers that mix channels may lose some of them all the same.
        cut: Where channels end; see `Trace.cut`.

    Returns:
        The calls, bindings, ties and frozen channels.
    """
    record = Trace(approximate=approximate, cut=cut or {})
    graph = functional(model)
    inputs = [record.new_opaque(tuple(tensor.shape[1:]), MODEL_INPUT) for tensor in graph.inputs]
    for flow in _trace_into(graph, [record.new_flow(channels) for channels in inputs], find_rule, record):
        record.frozen.append((record.flows[flow].ravel(), MODEL_OUTPUT))
    for binding in record.bindings.values():
        if id(binding.variable) in record.raw:
            record.frozen.append((binding.channels, f"{binding.variable.path!r} is used directly, not by its layer"))
    return record


def _trace_into(model: keras.Model, inputs: list[int], find_rule: FindRule, record: Trace) -> list[int]:
    model = functional(model)
    flows = {id(tensor): flow for tensor, flow in zip(model.inputs, inputs, strict=True)}
    for node in walk(model):
        arriving = [flows[id(tensor)] for tensor in node.inputs]
        inner = nested(node) if find_rule(node.operation) is None else None
        if inner is not None:
            if record.views.setdefault(id(node.operation), inner) is not inner:
                raise ValueError(
                    f"The layer {node.operation.name!r} ({type(node.operation).__name__}) is called inside different "
                    "layers or models on different shapes, so it cannot be read layer by layer. Call one layer object "
                    "for each, or express it as keras.Model(inputs, outputs)."
                )
            # Its inputs have one size, whichever call they come from.
            for first, other in zip(record.entries.setdefault(id(node.operation), arriving), arriving, strict=True):
                record.tie(record.flows[first], record.flows[other])
            leaving = _trace_into(inner, arriving, find_rule, record)
        else:
            leaving = _apply_rule(node, arriving, find_rule, record)
        flows.update((id(tensor), flow) for tensor, flow in zip(node.outputs, leaving, strict=True))
    return [flows[id(tensor)] for tensor in model.outputs]


def _apply_rule(node: Node, arriving: list[int], find_rule: FindRule, record: Trace) -> list[int]:
    channels = [record.flows[flow] for flow in arriving]
    call = Call(node.operation, node, channels, node.input_shapes, node.output_shapes, record, input_flows=arriving)
    raw = raw_variables(node.args, node.kwargs)
    if raw:
        call.outputs = call.give_up(f"{node.operation.name!r} uses the variable {raw[0].path!r} directly")
        record.raw += [id(variable) for variable in raw]
    else:
        call.follow(find_rule(node.operation))
    call.output_flows = [record.new_flow(channels) for channels in call.outputs]
    record.calls.append(call)
    return call.output_flows
