"""Sums, means, maxima and softmax over axes of symbolic tensors."""

import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.registry import rule


@rule("Sum", "CountNonzero", "Norm")
def _sum(call: Call) -> np.ndarray | list[np.ndarray]:
    """Zeros do not change a sum, so channels that are summed up may go when they are zero."""
    axes = _axes(call)
    if axes is None:
        return call.give_up(f"{call.layer.name!r} sums over the batch")
    order = getattr(call.layer, "ord", None)
    if order not in (None, 1, 2, "fro") or (order in (1, 2) and len(axes) > 1):
        return call.give_up(f"{call.layer.name!r} is a norm that is not followed")
    if not axes & {*varying_axes(call.inputs[0])}:
        call.constants_vary = _some_unknown(call, axes)
        return _reduce(call, axes)
    call.read(call.inputs[0])
    return call.opaque(f"sum over channels in {call.layer.name!r}")


@rule("Mean", "Max", "Min", "Amax", "Amin", "Prod", "Std", "Var", "Median")
def _statistic(call: Call) -> np.ndarray | list[np.ndarray]:
    axes = _axes(call)
    if axes is None:
        return call.give_up(f"{call.layer.name!r} reduces over the batch")
    if getattr(call.layer, "initial", None) is not None:
        return call.give_up(f"{call.layer.name!r} starts from a number of its own")
    if axes & {*varying_axes(call.inputs[0])}:
        return _mix_away(call)
    call.constants_vary = type(call.layer).__name__ == "Prod" and _some_unknown(call, axes)
    return _reduce(call, axes)


@rule("Logsumexp")
def _logsumexp(call: Call) -> np.ndarray | list[np.ndarray]:
    axes = _axes(call)
    if axes is None or axes & {*varying_axes(call.inputs[0])}:
        return _mix_away(call)
    call.zero_stays_zero = False
    call.constants_vary = _some_unknown(call, axes)
    return _reduce(call, axes)


@rule("Softmax", "LogSoftmax", "Sparsemax")
def _softmax(call: Call) -> np.ndarray | list[np.ndarray]:
    axes = _axes(call)
    if axes is None:
        return call.give_up(f"{call.layer.name!r} works over the batch")
    if axes & {*varying_axes(call.inputs[0])}:
        call.mix(call.inputs[0], f"{call.layer.name!r} mixes channels")
    call.zero_stays_zero = False
    call.constants_vary = _some_unknown(call, axes)
    return call.inputs[0]


@rule("Normalize")
def _normalize(call: Call) -> np.ndarray | list[np.ndarray]:
    axes, order = _axes(call), call.layer.order
    if axes is None or not isinstance(order, (int, float)) or not 0 < order < np.inf:
        return call.give_up(f"{call.layer.name!r} normalizes in a way that is not followed")
    if axes & {*varying_axes(call.inputs[0])}:
        call.read(call.inputs[0])
    call.constants_vary = True
    return call.inputs[0]


def _mix_away(call: Call) -> list[np.ndarray]:
    """Channels go into one number, which would change if some of them went."""
    reason = f"{call.layer.name!r} reduces over channels"
    for channels in call.inputs:
        call.mix(channels, reason)
    return call.opaque(reason)


def _axes(call: Call) -> set[int] | None:
    """The axes of the operation, counted from the end; `None` if the batch is among them."""
    rank = len(call.input_shapes[0]) + 1
    if call.layer.axis is None:
        return None
    axes = {axis % rank - rank for axis in np.atleast_1d(np.asarray(call.layer.axis, int)).tolist()}
    return None if -rank in axes else axes


def _reduce(call: Call, axes: set[int]) -> np.ndarray:
    channels = np.asarray(call.inputs[0])
    for axis in sorted(axes):  # from the first axis on: counted from the end, the others keep their numbers
        channels = np.expand_dims(np.take(channels, 0, axis), axis)
    if getattr(call.layer, "keepdims", False):
        return channels
    return np.squeeze(channels, tuple(axes))


def _some_unknown(call: Call, axes: set[int]) -> bool:
    return any(call.input_shapes[0][axis] is None for axis in axes)
