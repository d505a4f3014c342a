"""Recurrent layers: a hidden unit has one slice in every gate of both kernels."""

import keras
import numpy as np

from tfprune.graph.kinds import find_kind
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import on_axis
from tfprune.graph.rules.elementwise import activate
from tfprune.graph.rules.registry import rule

layers = keras.layers


@rule(layers.SimpleRNN, layers.GRU, layers.LSTM, width="units")
def _recurrent(call: Call) -> np.ndarray | list[np.ndarray]:
    """Follow units through a recurrent layer.

    A unit without input starts at zero and stays there, whatever its gates let through. A stateful layer keeps
    the promise from its reset state on; its states are not weights and are not copied.
    """
    layer, cell = call.layer, call.layer.cell
    if not call.node.args:
        return call.give_up(f"{layer.name!r} is called by keywords only, so its inputs are not told apart")
    kind = find_kind(cell)
    kernel, recurrent = kind.kernels
    call.bind(cell.kernel, kernel.input_axis, call.along(call.inputs[0], -1), "consumer")
    units = call.produce(cell.kernel, kernel.output_axis, blocks=kernel.gates)
    gated = np.tile(units, kernel.gates)
    call.bind(cell.recurrent_kernel, recurrent.output_axis, gated, "producer")
    call.bind(kind.shift_of(cell), -1, gated, "affine", "shift")
    call.bind(cell.recurrent_kernel, recurrent.input_axis, units, "consumer")
    _apply_activations(call, units)
    _freeze_given_states(call, units)
    output = on_axis(units, -1, rank=2 if layer.return_sequences else 1)
    return [output, *[units] * len(layer.state_size)] if layer.return_state else output


def _apply_activations(call: Call, units: np.ndarray) -> None:
    cell = call.layer.cell
    activate(call, units, cell.activation)
    if not call.zero_stays_zero:
        call.freeze(units, f"the activation of {call.layer.name!r} wakes units that are zero")
    activate(call, units, getattr(cell, "recurrent_activation", None))
    call.zero_stays_zero = True  # a gate that is open at zero still lets only zeros through


def _freeze_given_states(call: Call, units: np.ndarray) -> None:
    """Units may not go where the state to start from is an argument: it may hold anything, in the old size."""
    positional = dict(zip(("sequences", "initial_state", "mask"), call.node.args, strict=False))
    arguments = {**positional, **call.node.kwargs}
    if arguments.get("initial_state") is not None:
        call.freeze(units, f"{call.layer.name!r} starts from states that are given to it")
    for channels in call.inputs[1:]:
        call.freeze(channels, f"{call.layer.name!r} reads it as a state or mask")
