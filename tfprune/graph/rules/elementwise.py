"""Layers that work on every element alone: activations, dropout, scaling by numbers."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.calls import nodes_in_order
from tfprune.graph.kinds import find_kind
from tfprune.graph.open_sizes import settings
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.registry import Alive, rule

layers = keras.layers

ELEMENTWISE = (
    *("Abs", "Absolute", "Arccos", "Arccosh", "Arcsin", "Arcsinh", "Arctan", "Arctanh", "Cast", "Cbrt", "Ceil"),
    *("Clip", "Copy", "Cos", "Cosh", "Erf", "Exp", "Exp2", "Expm1", "Fabs", "Floor", "Isfinite", "Isinf", "Isnan"),
    *("Log", "Log10", "Log1p", "Log2", "LogicalNot", "Negative", "OnesLike", "Reciprocal", "Round", "Rsqrt"),
    *("SaturateCast", "Sign", "Sin", "Sinh", "Sqrt", "Square", "StopGradient", "Tan", "Tanh", "Trunc", "ZerosLike"),
    *("Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "LogSigmoid"),
    *("ReLU", "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink", "Softplus", "Softsign", "SparsePlus"),
    *("SparseSigmoid", "Squareplus", "TanhShrink", "Threshold"),
    *("Add", "Arctan2", "DivideNoNan", "FloorDivide", "Fmax", "Fmin", "Fmod", "Hypot", "Logaddexp", "Maximum"),
    *("Minimum", "Mod", "Power", "Subtract", "Where"),
    *("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalXor"),
)
"""Operations of `keras.ops` that work on every element alone, by the names of their classes."""

_PRODUCTS = ("Multiply", "Divide", "TrueDivide")
_MIXING = ("softmax", "log_softmax", "sparsemax", "glu")
_ELEMENTWISE = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"),
    *("log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign"),
    *("sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold"),
)


def activate(call: Call, channels: np.ndarray, activation: Any) -> np.ndarray:
    """Record what an activation does to the channels of a call, and return them.

    Args:
        call: The call of the layer that holds the activation.
        channels: The channels that it is applied to.
        activation: A function from `keras.activations`, an activation layer, or `None`.

    Returns:
        The same channels.
    """
    if activation is None or activation is keras.activations.linear:
        return channels
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in _MIXING or isinstance(activation, layers.Softmax):
        call.mix(channels, f"{name} in {call.layer.name!r} mixes channels")
    elif isinstance(activation, _ELEMENTWISE_LAYERS) or (
        name in _ELEMENTWISE and activation is getattr(keras.activations, name, None)
    ):
        _apply_to_zero(call, activation)
    elif is_elementwise(activation):
        if not np.isfinite(_at(activation, 0.0)):
            call.freeze(channels, f"activation {name} in {call.layer.name!r} is not finite at zero")
        _apply_to_zero(call, activation)
    else:
        call.freeze(channels, f"activation {name} in {call.layer.name!r} is not known to work element by element")
    return channels


def bind_scale_and_shift(call: Call, channels: np.ndarray) -> None:
    """Bind what the layer of a call multiplies each channel with, and what it adds.

    Args:
        call: The call.
        channels: The channel for each position.
    """
    kind = find_kind(call.layer)
    call.bind(kind.scale_of(call.layer), 0, channels, "affine", "scale")
    call.bind(kind.shift_of(call.layer), 0, channels, "affine", "shift")


@rule(layers.Activation)
def _activation(call: Call) -> np.ndarray:
    return activate(call, call.inputs[0], call.layer.activation)


@rule(layers.ReLU, layers.LeakyReLU, layers.ELU)
def _activation_layer(call: Call) -> np.ndarray:
    _apply_to_zero(call, call.layer)
    return call.inputs[0]


@rule(layers.PReLU)
def _prelu(call: Call) -> np.ndarray:
    (name,), channels = find_kind(call.layer).statistics, call.inputs[0]
    alpha = getattr(call.layer, name)
    for axis, size in enumerate(alpha.shape):
        if channels.shape[axis] > 1 and size > 1:
            call.bind(alpha, axis, call.along(channels, axis), "statistics")
    return channels


@rule(layers.Softmax)
def _softmax(call: Call) -> np.ndarray:
    call.mix(call.inputs[0], f"{call.layer.name!r} mixes channels")
    return call.inputs[0]


@rule(
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.Identity,
)
def _identity_at_inference(call: Call) -> np.ndarray:
    return call.inputs[0]


@rule(layers.Masking)
def _masking(call: Call) -> np.ndarray:
    if call.layer.mask_value == 0:
        call.read(call.inputs[0])  # a time step is left out if all its channels are zero; zeros make no difference
    else:
        call.freeze(call.inputs[0], f"{call.layer.name!r} looks for {call.layer.mask_value} in all channels")
    return call.inputs[0]


@rule("Any")
def _any(call: Call) -> np.ndarray | list[np.ndarray]:
    """Keras puts it after a Masking layer: which time steps have a channel that is not zero."""
    axes = np.atleast_1d(call.layer.axis if call.layer.axis is not None else [])
    rank = len(call.input_shapes[0]) + 1
    if not {axis % rank - rank for axis in axes.tolist()} >= set(varying_axes(call.inputs[0])):
        return call.give_up(f"{call.layer.name!r} does not go over the channels")
    call.read(call.inputs[0])
    return call.opaque(f"{call.layer.name!r} is a mask")


def _resize_rescaling(call: Call, config: dict[str, Any], alive: Alive) -> None:
    if _scales_channels(call):
        channels = np.broadcast_to(call.inputs[0].reshape(-1), np.shape(call.layer.scale))
        config["scale"] = np.repeat(call.layer.scale, alive[channels].astype(int)).tolist()


def _scales_channels(call: Call) -> bool:
    """Whether the layer multiplies channels, on the last axis, by a number for each and adds the same to all."""
    alone = call.inputs[0].size == call.inputs[0].shape[-1]
    return np.shape(call.layer.scale) == call.input_shapes[0][-1:] and np.isscalar(call.layer.offset) and alone


@rule(layers.Rescaling, resize=_resize_rescaling)
def _rescaling(call: Call) -> np.ndarray:
    is_number = np.isscalar(call.layer.scale) and np.isscalar(call.layer.offset)
    if not is_number and not _scales_channels(call):
        call.freeze(call.inputs[0], f"{call.layer.name!r} has a scale or offset per channel")
    call.zero_stays_zero = bool(np.all(np.asarray(call.layer.offset) == 0))
    return call.inputs[0]


@rule(layers.Normalization)
def _normalization(call: Call) -> np.ndarray:
    call.freeze(call.inputs[0], f"{call.layer.name!r} has adapted statistics per channel")
    return call.inputs[0]


def _apply_to_zero(call: Call, function: Any) -> None:
    if _at(function, 0.0) != 0.0:
        call.zero_stays_zero = False


def _at(function: Any, value: float) -> float:
    return float(keras.ops.convert_to_numpy(function(keras.ops.full((1,), value)))[0])


def is_elementwise(function: Any) -> bool:
    """Return whether a function of one tensor is made of operations that work on every element alone.

    Args:
        function: A function from a tensor to a tensor, such as an activation of the user's.

    Returns:
        Whether it is; False if it cannot be run on symbolic tensors.

    Example:

    >>> is_elementwise(lambda x: x * keras.ops.sigmoid(1.7 * x)), is_elementwise(lambda x: x - keras.ops.mean(x))
    (True, False)
    """
    made = []
    for size in (3, 5):  # numbers that depend on the size differ
        tensor = keras.Input((size,))
        try:
            graph = keras.Model(tensor, function(tensor))
        except Exception:  # whatever a function of the user's raises on symbolic tensors
            return False
        nodes = nodes_in_order(graph)
        told = [list(settings(node.operation, node.arguments.args, node.arguments.kwargs)) for node in nodes]
        if not all(_works_on_elements(node.operation, each) for node, each in zip(nodes, told, strict=True)):
            return False
        made.append([repr(value) for each in told for value in each if not isinstance(value, keras.KerasTensor)])
    return made[0] == made[1]


def _works_on_elements(operation: Any, told: list[Any]) -> bool:
    known = type(operation).__name__ in (*ELEMENTWISE, *_PRODUCTS) and type(operation).__module__.startswith("keras.")
    arrays = [value for value in told if hasattr(value, "shape") and not isinstance(value, keras.KerasTensor)]
    return known and all(np.ndim(value) == 0 and not isinstance(value, keras.Variable) for value in arrays)


_ELEMENTWISE_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)
