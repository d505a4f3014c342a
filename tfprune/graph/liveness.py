"""Which channels still carry information: zero, constant or live, at every kernel that reads them.

A level belongs to a channel *in one tensor*, not to the channel: an addition ties the channels of its inputs, and yet
one may be zero while the other one is live. One channel of a residual block, whose last gamma is zero and beta is not:

    trunk    LIVE ----------------------------------------.
    branch   LIVE --[kernel]--> LIVE --[gamma]--> ZERO     |
                                       [beta]---> CONSTANT --(+)--> LIVE --[kernel that reads it]: must stay

So levels are kept by tensor (`flows`), all start as LIVE, and one pass over the calls, in the order of the data, lowers
them. Only what arrives at a kernel, or at a sum without one, decides whether a channel can go; a channel goes if it
arrives nowhere as LIVE, nor as a constant that no bias can take.

The order ZERO < CONSTANT < LIVE makes the maximum right for what is added up. Within a call the bindings act in the
order in which the rule made them: what reads sees the channel as it comes in, a kernel makes it anew, a scale of zero
makes even a live channel zero, and a shift after it makes zero a constant.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.graph.record import Binding, Call, Trace

ZERO, CONSTANT, LIVE = 0, 1, 2
"""What a channel carries: nothing, the same number everywhere, or information."""


@dataclass(frozen=True)
class Arrival:
    """What arrives at one kernel that reads channels.

    Attributes:
        call: The call of the layer that owns the kernel.
        binding: The axis of the kernel along which the channels are read.
        level: `ZERO`, `CONSTANT` or `LIVE` for each position on the axis.
    """

    call: Call
    binding: Binding
    level: np.ndarray


def arrivals(trace: Trace, labels: np.ndarray, alive: np.ndarray | None = None) -> list[Arrival]:
    """Follow zeros and constants through a model, from its weights as they are now or as masks would make them.

    A channel is born zero where the kernel slice that makes it is zero, becomes zero where a scale (gamma, a
    depthwise kernel) is zero, and becomes a constant where a shift (bias, beta) is not. A sum carries the most
    that its terms carry; a product is zero where a factor is.

    Args:
        trace: The traced model.
        labels: For each channel number, the number that it stands for; see `Trace.components`.
        alive: One bool per channel number; what makes and carries the others counts as zero. `None` to go by
            the weights alone.

    Returns:
        What arrives at each kernel that reads channels, in the order of the calls.
    """
    return _follow(trace, labels, alive)[0]


Sum = tuple[Call, np.ndarray, np.ndarray]
"""A call that sums up channels without a kernel, their labels, and the level of each."""


def _follow(trace: Trace, labels: np.ndarray, alive: np.ndarray | None = None) -> tuple[list[Arrival], list[Sum]]:
    found: list[Arrival] = []
    sums: list[Sum] = []
    levels = {flow: np.full(channels.shape, LIVE, np.int8) for flow, channels in enumerate(trace.flows)}
    for call in trace.calls:
        level = _combine(call, levels, labels)  # by label, of what is inside this call; changed step by step
        sums += [(call, labels[channels], level[labels[channels]]) for channels in call.reads]
        made = np.zeros(len(labels), bool)
        for binding in call.bindings:
            if binding.role == "consumer":
                found.append(Arrival(call, binding, level[labels[binding.channels]]))
            else:
                _act(binding, labels[binding.channels], level, made, alive)
        if not call.zero_stays_zero:
            np.maximum(level, CONSTANT, out=level)
        if call.constants_vary:
            level[level == CONSTANT] = LIVE
        for flow, channels in zip(call.output_flows, call.outputs, strict=True):
            levels[flow] = level[labels[channels]]
    return found, sums


def dead_labels(trace: Trace, labels: np.ndarray) -> np.ndarray:
    """Return the labels of channels that reach no kernel alive, and could be removed if they are not frozen.

    A constant that arrives at a kernel counts as dead if it can be added to that layer's bias instead.

    Args:
        trace: The traced model.
        labels: For each channel number, the number that it stands for.

    Returns:
        One bool per label.
    """
    reaches = np.full(trace.num_channels, ZERO, np.int8)
    found, sums = _follow(trace, labels)
    for _, roots, level in sums:
        np.maximum.at(reaches, roots, np.where(level == CONSTANT, LIVE, level))
    for arrival in found:
        np.maximum.at(reaches, labels[arrival.binding.channels], arrival.level)
        np.maximum.at(reaches, labels[unfoldable(trace, arrival)], LIVE)
    return reaches != LIVE


def unfoldable(trace: Trace, arrival: Arrival) -> np.ndarray:
    """Return the channels that arrive as a constant where it cannot be added to a bias.

    Args:
        trace: The traced model.
        arrival: What arrives at one kernel.

    Returns:
        Channel numbers.
    """
    constant = arrival.binding.channels[arrival.level == CONSTANT]
    if constant.size and arrival.call.folds_constants:
        # The calls of a shared layer may receive different constants, but it has one bias.
        calls = sum(call.layer is arrival.call.layer for call in trace.calls)
        return constant[:0] if calls == 1 else constant
    return constant


def stranded(trace: Trace, labels: np.ndarray, alive: np.ndarray) -> list[tuple[Call, np.ndarray]]:
    """Return the channels that would arrive as more than zeros where nothing can absorb them, call by call.

    That is a constant that no bias can take, or one that comes to vary from one position to the next.

    Args:
        trace: The traced model.
        labels: For each channel number, the number that it stands for.
        alive: One bool per channel number; what makes and carries the others counts as zero.

    Returns:
        Pairs of a call and channel numbers; only for calls where there are any.
    """
    found, sums = _follow(trace, labels, alive)
    pairs = [(arrival.call, unfoldable(trace, arrival)) for arrival in found]
    pairs += [(arrival.call, arrival.binding.channels[arrival.level == LIVE]) for arrival in found]
    pairs += [(call, roots[level != ZERO]) for call, roots, level in sums]
    return [(call, channels) for call, channels in pairs if channels.size]


def _combine(call: Call, levels: dict[int, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The level of each label behind the inputs of a call; LIVE for those that do not come in."""
    combined = np.full(len(labels), -1, np.int8)
    for flow, channels in zip(call.input_flows, call.inputs, strict=True):
        level = np.full(len(labels), -1, np.int8)
        np.maximum.at(level, labels[channels].ravel(), levels[flow].ravel())
        if call.is_product:
            level[level == -1] = LIVE
            combined = np.where((combined == ZERO) | (level == ZERO), ZERO, np.maximum(combined, level))
        else:
            combined = np.maximum(combined, level)
    combined[combined == -1] = LIVE
    return combined


def _act(binding: Binding, roots: np.ndarray, level: np.ndarray, made: np.ndarray, alive: np.ndarray | None) -> None:
    if binding.role != "producer" and binding.effect is None:
        return
    nonzero = np.zeros(len(level), bool)
    np.logical_or.at(nonzero, roots, _nonzero_slices(binding, alive))
    if binding.role == "producer":
        # Several kernels of one call may make a channel together, as in a recurrent layer.
        level[roots] = np.where(nonzero[roots], LIVE, np.where(made[roots], level[roots], ZERO))
        made[roots] = True
    elif binding.effect == "scale":
        level[roots[~nonzero[roots]]] = ZERO
    else:
        # A bias that changes along other axes too is no constant.
        shift = CONSTANT if math.prod(binding.variable.shape) == len(roots) else LIVE
        level[roots] = np.maximum(level[roots], np.where(nonzero[roots], shift, ZERO))


def _nonzero_slices(binding: Binding, alive: np.ndarray | None) -> np.ndarray:
    stays = np.ones(binding.channels.shape, bool)
    if alive is not None and binding.role in ("producer", "affine"):
        stays = alive[binding.channels]
    if not stays.any():
        return stays
    return stays & nonzero_slices(binding.variable, binding.axis)


def nonzero_slices(variable: keras.Variable, axis: int) -> np.ndarray:
    """Return for each position on an axis of a variable whether its slice holds anything but zeros.

    Args:
        variable: The variable.
        axis: The axis.

    Returns:
        One bool per position.

    Example:

    >>> nonzero_slices(keras.Variable([[0.0, 1.0], [0.0, 0.0]]), axis=1)
    array([False,  True])
    """
    values = variable.numpy()
    return (values != 0).any(axis=tuple(other for other in range(values.ndim) if other != axis))
