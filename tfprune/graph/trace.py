"""Follow every channel of a model from the weights that make it to the weights that read it."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfprune.graph.chains import children
from tfprune.graph.narrower import Narrow, config_for
from tfprune.graph.record import Call, Trace
from tfprune.graph.rules import find_rule
from tfprune.graph.rules.channel_axes import resized, varying_axes
from tfprune.graph.rules.variables import Part, joined, moved
from tfprune.graph.subclassed import raw_variables
from tfprune.graph.walk import Node, functional, is_own, nested, unreadable_because, walk
from tfprune.graph.whole_layers import NotFollowedError, WholeLayer, read_whole
from tfprune.graph.wrapped import model_for_each_step

MODEL_INPUT = "model input"
MODEL_OUTPUT = "model output"

_STEP = keras.layers.Identity(name="time_step")
"""Stands in calls for the way from all time steps to one, and back."""


def trace(model: keras.Model, approximate: bool = False, cut: Mapping[int, np.ndarray] | None = None) -> Trace:
    """Trace every channel of `model`.

    Args:
        model: A built Sequential or functional model.
        approximate: Whether layers that mix channels may lose some of them all the same.
        cut: Where channels end; see `Trace.cut`.

    Returns:
        The calls, bindings, ties and frozen channels.
    """
    record = Trace(approximate=approximate, cut=cut or {})
    graph = functional(model)
    inputs = [record.new_opaque(tuple(tensor.shape[1:]), MODEL_INPUT) for tensor in graph.inputs]
    for flow in _trace_into(graph, [record.new_flow(channels) for channels in inputs], record):
        record.frozen.append((record.flows[flow].ravel(), MODEL_OUTPUT))
    for binding in record.bindings.values():
        if id(binding.variable) in record.raw:
            record.frozen.append((binding.channels, f"{binding.variable.path!r} is used directly, not by its layer"))
    return record


def _trace_into(model: keras.Model, inputs: list[int], record: Trace) -> list[int]:
    model = functional(model)
    flows = {id(tensor): flow for tensor, flow in zip(model.inputs, inputs, strict=True)}
    for node in walk(model):
        arriving = [flows[id(tensor)] for tensor in node.inputs]
        flows.update(
            (id(tensor), flow) for tensor, flow in zip(node.outputs, _leaving(node, arriving, record), strict=True)
        )
    return [flows[id(tensor)] for tensor in model.outputs]


def _leaving(node: Node, arriving: list[int], record: Trace) -> list[int]:
    """The numbers of the tensors that come out of a call."""
    stepped = model_for_each_step(node)
    if stepped is not None and find_rule(stepped[0]) is None:
        return _trace_steps(node, *stepped, arriving, record)
    if find_rule(node.operation) is not None:
        return _apply_rule(node, arriving, record)
    inner = nested(node)
    return _trace_whole(node, arriving, record) if inner is None else _enter(node.operation, inner, arriving, record)


def _enter(layer: keras.layers.Layer, inner: keras.Model, arriving: list[int], record: Trace) -> list[int]:
    """Go into the model that a layer is or stands for."""
    if record.views.setdefault(id(layer), inner) is not inner:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) is called inside different layers or models on "
            "different shapes, so it cannot be read layer by layer. Call one layer object for each, or express it as "
            "keras.Model(inputs, outputs)."
        )
    # Its inputs have one size, whichever call they come from.
    for first, other in zip(record.entries.setdefault(id(layer), arriving), arriving, strict=True):
        record.tie(record.flows[first], record.flows[other])
    return _trace_into(inner, arriving, record)


def _trace_steps(
    node: Node, layer: keras.layers.Layer, inner: keras.Model, arriving: list[int], record: Trace
) -> list[int]:
    """Go into a model that is called for each time step, between two calls that only drop and add that axis."""
    for extra in arriving[1:]:
        record.frozen.append((record.flows[extra].ravel(), f"{node.operation.name!r} reads it as a mask"))
    channels = record.flows[arriving[0]]
    record.tie(channels[:1], channels)
    into = Node(_STEP, node.inputs[:1], tuple(inner.inputs))
    out_of = Node(_STEP, tuple(inner.outputs), node.outputs)
    outside, steps = record.repeats, node.input_shapes[0][0]
    entering = _new_call(into, arriving[:1], record, node.operation)
    entering.outputs = [channels[0]]
    record.repeats = None if steps is None or outside is None else outside * steps
    made = _enter(layer, inner, _finish(entering, record), record)
    record.repeats = outside
    leaving = _new_call(out_of, made, record, node.operation)
    leaving.outputs = [record.flows[made[0]][None]]
    return _finish(leaving, record)


def _apply_rule(
    node: Node, arriving: list[int], record: Trace, owner: keras.layers.Layer | None = None, why: str = ""
) -> list[int]:
    call = _new_call(node, arriving, record, owner)
    raw = raw_variables(node.args, node.kwargs)
    known = find_rule(node.operation)
    if raw:
        call.outputs = call.give_up(f"{node.operation.name!r} uses the variable {raw[0].path!r} directly")
        record.raw += [id(variable) for variable in raw]
    else:
        call.follow(known.trace if known else None, why)
    return _finish(call, record)


def _new_call(node: Node, arriving: list[int], record: Trace, owner: keras.layers.Layer | None) -> Call:
    channels = [record.flows[flow] for flow in arriving]
    call = Call(node.operation, node, channels, node.input_shapes, node.output_shapes, record, input_flows=arriving)
    call.owner, call.repeats = owner, record.repeats
    return call


def _finish(call: Call, record: Trace) -> list[int]:
    call.output_flows = [record.new_flow(channels) for channels in call.outputs]
    record.calls.append(call)
    return call.output_flows


def _trace_whole(node: Node, arriving: list[int], record: Trace) -> list[int]:
    """Follow a layer without a rule by the operations that it makes; freeze what it touches if that fails."""
    if not is_own(node.operation):
        return _apply_rule(node, arriving, record)
    before = len(record.calls)
    try:
        return _Whole(node, arriving, record).leaving()
    except NotFollowedError as error:
        del record.calls[before:]
        has_layers = any(inner.weights for inner in children(node.operation))
        return _apply_rule(node, arriving, record, why=unreadable_because(node) if has_layers else str(error))


class _Whole:
    """Follows channels through the operations of one call of a layer."""

    def __init__(self, node: Node, arriving: list[int], record: Trace) -> None:
        self._node, self._arriving, self._record = node, arriving, record
        self._bound: dict[tuple[int, int], np.ndarray] = {}
        self._whole: WholeLayer = read_whole(node.operation, node.args, node.kwargs)
        self._flows = {id(tensor): flow for tensor, flow in zip(self._whole.inputs, arriving, strict=True)}
        self._parts = {key: Part.of(variable) for key, variable in self._whole.variables.items()}

    def leaving(self) -> list[int]:
        for inner in self._whole.nodes:
            self._step(inner)
        if any(id(tensor) in self._parts for tensor in self._whole.outputs):
            raise NotFollowedError("it returns its variables")
        self._find_sizes()
        return [self._flows[id(tensor)] for tensor in self._whole.outputs]

    def _step(self, inner: Node) -> None:
        parts = [self._parts[id(tensor)] for tensor in inner.inputs if id(tensor) in self._parts]
        tensors = tuple(tensor for tensor in inner.inputs if id(tensor) not in self._parts)
        arriving = [self._flows[id(tensor)] for tensor in tensors]
        if not parts:
            self._check_size(inner, arriving)
            leaving = _apply_rule(inner, arriving, self._record, self._node.operation)
        elif (len(parts), len(tensors)) == (1, 0):
            self._parts[id(inner.outputs[0])] = moved(inner, parts[0])
            return
        elif (len(parts), len(tensors)) == (1, 1):
            call = _new_call(dataclasses.replace(inner, inputs=tensors), arriving, self._record, self._node.operation)
            call.outputs = [joined(call, parts[0], is_first=inner.inputs[0] is not tensors[0])]
            leaving = _finish(call, self._record)
            self._bound |= {(id(each.variable), each.axis): each.channels for each in call.bindings}
        else:
            raise NotFollowedError(f"it combines several variables in {inner.operation.name!r}")
        self._flows.update((id(tensor), flow) for tensor, flow in zip(inner.outputs, leaving, strict=True))

    def _check_size(self, inner: Node, arriving: Sequence[int]) -> None:
        """Refuse operations that other arguments would have to be given, which are in the layer's own code."""
        known = find_rule(inner.operation)
        moves = known is not None and (known.resize is not None or known.rearrange is not None)
        if moves and any(varying_axes(self._record.flows[flow]) for flow in arriving):
            raise NotFollowedError(
                f"its call moves channels by their places or number ({type(inner.operation).__name__})"
            )

    def _find_sizes(self) -> None:
        """Make the layer for one channel less of each input, and keep which entries of its config change."""
        record, layer = self._record, self._node.operation
        alive = np.ones(record.num_channels, bool)
        made = [record.flows[flow] for flow in self._arriving if varying_axes(record.flows[flow])]
        if not made:
            return
        for channels in made:
            alive[channels.ravel()[-1]] = False
        outer = zip(self._node.inputs, self._arriving, strict=True)
        tensors = [
            *outer,
            *(
                (each, self._flows[id(each)])
                for node in self._whole.nodes
                for each in node.outputs
                if id(each) in self._flows
            ),
        ]
        shapes = {id(tensor): resized(tensor.shape, record.flows[flow], alive) for tensor, flow in tensors}
        numbers = made[0].ravel()
        narrow = Narrow(
            len(numbers), int(alive[numbers].sum()), shapes, [self._shape(v, alive) for v in layer.variables]
        )
        keys = config_for(layer, self._whole, self._node.args, self._node.kwargs, narrow)
        record.config_sizes[id(layer)] = dict.fromkeys(keys, numbers)

    def _shape(self, variable: keras.Variable, alive: np.ndarray) -> tuple[int, ...]:
        bound = [self._bound.get((id(variable), axis)) for axis in range(len(variable.shape))]
        return tuple(
            size if channels is None else int(alive[channels].sum())
            for size, channels in zip(variable.shape, bound, strict=True)
        )
