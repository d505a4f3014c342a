"""Arithmetic on symbolic tensors, element by element: `keras.ops` and Python operators."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.elementwise import ELEMENTWISE
from tfprune.graph.rules.merging import merge, spreads_over_channels
from tfprune.graph.rules.registry import rule


@rule(*ELEMENTWISE)
def _elementwise(call: Call) -> np.ndarray | list[np.ndarray]:
    return elementwise(call)


@rule("Multiply")
def _product(call: Call) -> np.ndarray | list[np.ndarray]:
    call.is_product = True
    return elementwise(call)


@rule("Divide", "TrueDivide")
def _quotient(call: Call) -> np.ndarray | list[np.ndarray]:
    # Zero divided by what is the same for all channels stays zero; by a channel of zeros it would be NaN.
    if len(call.inputs) == 2 and spreads_over_channels(call, 1):
        call.is_product = True
        return merge(call)
    return elementwise(call)


def elementwise(call: Call) -> np.ndarray | list[np.ndarray]:
    """Tie the inputs of a call, and find what it makes of zeros by calling it on zeros."""
    name = f"{type(call.layer).__name__} {call.layer.name!r}"
    constants = _constants(call)
    if any(isinstance(constant, keras.Variable) for constant in constants):
        return call.give_up(f"{name} uses a variable directly, not through a layer")
    if len({len(shape) for shape in call.input_shapes}) > 1:
        return call.give_up(f"{name} combines tensors of different rank")
    if any(_is_per_channel(call, np.shape(constant)) for constant in constants):
        return call.give_up(f"{name} uses an array along the channels, which would have to shrink too")
    value = _at_zero(call)
    if not np.isfinite(value).all():
        return call.give_up(f"{name} is not finite where a channel is zero")
    if (value != value.flat[0]).any():
        return call.give_up(f"{name} makes zeros into numbers that vary over positions")
    call.zero_stays_zero = not value.any()
    call.constants_vary = any(np.size(constant) > 1 for constant in constants)  # from one position to the next
    return merge(call)


def _at_zero(call: Call) -> np.ndarray:
    """The value of the operation where all its tensors are zero."""

    def zeros(value: Any) -> Any:
        if isinstance(value, keras.KerasTensor):
            return keras.ops.zeros([1] * len(value.shape), value.dtype)
        return value

    args, kwargs = keras.tree.map_structure(zeros, (tuple(call.node.args), dict(call.node.kwargs)))
    return keras.ops.convert_to_numpy(keras.ops.cast(call.layer(*args, **kwargs), "float64"))


def _is_per_channel(call: Call, shape: tuple[int, ...]) -> bool:
    """Whether a constant of this shape changes along channels, the batch, or an axis that it makes longer."""
    rank = len(call.input_shapes[0]) + 1
    if len(shape) > rank:
        return True
    for axis in [axis - len(shape) for axis, size in enumerate(shape) if size > 1]:
        if axis == -rank:
            return True
        for channels, size in zip(call.inputs, call.input_shapes, strict=True):
            if axis in varying_axes(channels) or size[axis] == 1:
                return True
    return False


def _constants(call: Call) -> list[Any]:
    """The arguments of an operation that are numbers, arrays or variables, not symbolic tensors."""
    flat = keras.tree.flatten((tuple(call.node.args), dict(call.node.kwargs)))
    return [value for value in flat if value is not None and not isinstance(value, (keras.KerasTensor, str))]


@rule("LayerScale", width="projection_dim")
def _layer_scale(call: Call) -> np.ndarray:
    call.bind(call.layer.gamma, 0, call.along(call.inputs[0], -1), "affine", "scale")
    return call.inputs[0]


@rule("CustomScaleLayer")
def _scaled_residual(call: Call) -> np.ndarray | list[np.ndarray]:
    return merge(call)
