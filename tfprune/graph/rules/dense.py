"""Dense layers multiply by a kernel, embeddings look up its rows."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph.kinds import find_kind
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import on_axis, varying_axes
from tfprune.graph.rules.elementwise import activate, bind_scale_and_shift
from tfprune.graph.rules.registry import Alive, count_alive, rule


@rule(keras.layers.Dense, width="units")
def _dense(call: Call) -> np.ndarray | list[np.ndarray]:
    layer = call.layer
    if layer.kernel is not layer.variables[0]:  # LoRA and int8 kernels are computed, not stored
        return call.give_up(f"the kernel of {layer.name!r} is not a plain variable (LoRA or quantized)")
    call.folds_constants = True
    (kernel,) = find_kind(layer).kernels
    call.bind(layer.kernel, kernel.input_axis, call.along(call.inputs[0], -1), "consumer")
    made = call.produce(layer.kernel, kernel.output_axis)
    bind_scale_and_shift(call, made)
    return activate(call, on_axis(made, -1, rank=len(call.input_shapes[0])), layer.activation)


@rule(keras.layers.Embedding, width="output_dim")
def _embedding(call: Call) -> np.ndarray | list[np.ndarray]:
    layer = call.layer
    if layer.embeddings is not layer.variables[0]:
        return call.give_up(f"the embeddings of {layer.name!r} are not a plain variable (LoRA or quantized)")
    call.freeze(call.inputs[0], f"{layer.name!r} looks up rows by it")
    (kernel,) = find_kind(layer).kernels
    made = call.produce(layer.embeddings, kernel.output_axis)
    return on_axis(made, -1, rank=len(call.input_shapes[0]) + 1)


@dataclass(frozen=True)
class Axes:
    """The axes of an einsum that matter to channels; those of tensors are counted from the end.

    Attributes:
        contracted: Pairs of axes of the input and of the kernel that are summed over.
        made: The last axis of the output that only the kernel has, or `None`.
        making: The axis of the kernel that it comes from, or `None`.
    """

    contracted: tuple[tuple[int, int], ...]
    made: int | None
    making: int | None


def parse_equation(equation: str) -> Axes | None:
    """Read the equation of an `EinsumDense`, or return `None` for one that is written in a way unknown here.

    Args:
        equation: An equation such as `"abc,cd->abd"`, or `"...c,cd->...d"`.

    Returns:
        Its axes.

    Example:

    >>> parse_equation("abc,cd->abd")
    Axes(contracted=((-1, 0),), made=-1, making=1)
    """
    operands, _, output = equation.replace(" ", "").partition("->")
    source, _, kernel = operands.partition(",")
    source, output = source.removeprefix("..."), output.removeprefix("...")
    if not all(word.isalpha() and len(set(word)) == len(word) for word in (source, kernel, output)):
        return None
    contracted = [letter for letter in source if letter in kernel and letter not in output]
    new = [letter for letter in output if letter in kernel and letter not in source]
    return Axes(
        tuple((source.index(letter) - len(source), kernel.index(letter)) for letter in contracted),
        output.index(new[-1]) - len(output) if new else None,
        kernel.index(new[-1]) if new else None,
    )


def _resize_einsum(call: Call, config: dict[str, Any], alive: Alive) -> None:
    axes = parse_equation(call.layer.equation)
    if axes is not None and axes.made is not None and axes.making is not None:
        made = call.bound(call.layer.kernel, axes.making)
        if made is not None:
            sizes = list(config["output_shape"])
            sizes[axes.made] = count_alive(made, alive)
            config["output_shape"] = tuple(sizes)


@rule(keras.layers.EinsumDense, resize=_resize_einsum)
def _einsum(call: Call) -> np.ndarray | list[np.ndarray]:
    """Channels lie on the last axis that the kernel adds; its other new axes are left as they are."""
    layer, axes, varying = call.layer, parse_equation(call.layer.equation), varying_axes(call.inputs[0])
    if layer.kernel is not layer.variables[0]:
        return call.give_up(f"the kernel of {layer.name!r} is not a plain variable (LoRA or quantized)")
    if axes is None or axes.made is None or axes.making is None:
        return call.give_up(f"the equation {layer.equation!r} of {layer.name!r} is not understood")
    contracted = dict(axes.contracted)
    if len(varying) > 1 or not contracted.keys() >= set(varying):
        return call.give_up(f"{layer.name!r} does not sum over the axis of its channels alone")
    for axis in varying or contracted:
        call.bind(layer.kernel, contracted[axis], call.along(call.inputs[0], axis), "consumer")
    made = call.produce(layer.kernel, axes.making)
    _bind_einsum_bias(call, made, axes.made)
    return activate(call, on_axis(made, axes.made, rank=len(call.output_shapes[0])), layer.activation)


def _bind_einsum_bias(call: Call, made: np.ndarray, axis: int) -> None:
    """Bind the bias, which Keras aligns with the end of the output, where it has a number for every channel."""
    layer = call.layer
    if layer.bias is None:
        return
    if -axis <= len(layer.bias.shape) and layer.bias.shape[axis] == len(made):
        call.bind(layer.bias, axis, made, "affine", "shift")
        plain = parse_equation(layer.equation) == Axes(((-1, 0),), -1, 1) and len(layer.kernel.shape) == 2
        same_positions = len(call.input_shapes[0]) == len(call.output_shapes[0])
        call.folds_constants = plain and same_positions and len(layer.bias.shape) == 1
    else:
        call.freeze(made, f"{layer.name!r} adds one bias to all channels")
