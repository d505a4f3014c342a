"""What each kind of layer does to channels: one rule a kind, in the tables at the end.

A rule binds the layer's variables to channel numbers and returns the channels of its output. It must keep the
promise on which exact removal rests: where all inputs of a channel are zero and its affine parameters are zero,
its output is zero. Where that is not so, the rule freezes the channel and says why.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.graph.trace import Call, Rule

RULES: dict[type, Rule] = {}
WIDTH: dict[type, str] = {}


def rule(*layer_classes: type, width: str | None = None) -> Callable[[Rule], Rule]:
    """Register what a kind of layer does to channels.

    The rule holds for these classes exactly, not for their subclasses. A rule registered again replaces the
    earlier one.

    Args:
        *layer_classes: The classes that the rule speaks of.
        width: The name of the constructor argument that says how many channels the layer makes, such as
            `"filters"`; `None` for a layer that makes none.

    Returns:
        A decorator for the rule, a function from a `Call` to the channels of the output.

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=(shape[-1],), name="scale")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @rule(Scale)
    ... def scale(call):
    ...     call.bind(call.layer.scale, 0, call.along(call.inputs[0], -1), "affine")
    ...     return call.inputs[0]
    """

    def register(function: Rule) -> Rule:
        for layer_class in layer_classes:
            RULES[layer_class] = function
            WIDTH.pop(layer_class, None)
            if width is not None:
                WIDTH[layer_class] = width
        return function

    return register


@rule(keras.layers.Conv2D, width="filters")
def _convolution(call: Call) -> np.ndarray:
    layer = call.layer
    if layer.groups != 1:
        return call.give_up(f"grouped convolution {layer.name!r} has no rule")[0]
    axis = _channel_axis(layer)
    call.bind(layer.kernel, -2, call.along(call.inputs[0], axis), "consumer")
    made = call.produce(layer.kernel, -1)
    call.bind(layer.bias, 0, made, "affine")
    return _activate(call, _on_axis(made, axis, rank=len(call.input_shapes[0])), layer.activation)


@rule(keras.layers.Dense, width="units")
def _dense(call: Call) -> np.ndarray:
    layer = call.layer
    if layer.kernel is not layer.variables[0]:  # LoRA or int8 kernels are computed, not stored
        return call.give_up(f"the kernel of {layer.name!r} is not a plain variable (LoRA or quantized)")[0]
    call.bind(layer.kernel, 0, call.along(call.inputs[0], -1), "consumer")
    made = call.produce(layer.kernel, -1)
    call.bind(layer.bias, 0, made, "affine")
    return _activate(call, _on_axis(made, -1, rank=len(call.input_shapes[0])), layer.activation)


@rule(keras.layers.DepthwiseConv2D)
def _depthwise(call: Call) -> np.ndarray:
    layer, axis = call.layer, _channel_axis(call.layer)
    arriving = call.along(call.inputs[0], axis)
    call.bind(layer.kernel, 2, arriving, "affine")
    leaving = np.repeat(arriving, layer.depth_multiplier)
    call.bind(layer.bias, 0, leaving, "affine")
    return _activate(call, _on_axis(leaving, axis, rank=len(call.input_shapes[0])), layer.activation)


@rule(keras.layers.BatchNormalization)
def _batch_normalization(call: Call) -> np.ndarray:
    layer = call.layer
    axis = layer.axis - 1 if layer.axis > 0 else layer.axis
    channels = call.along(call.inputs[0], axis)
    call.bind(layer.gamma, 0, channels, "affine")
    call.bind(layer.beta, 0, channels, "affine")
    # Without gamma, a zero input comes out as -mean/deviation: the mean must be zero too.
    call.bind(layer.moving_mean, 0, channels, "statistics" if layer.scale else "affine")
    call.bind(layer.moving_variance, 0, channels, "statistics")
    return call.inputs[0]


@rule(keras.layers.Activation)
def _activation(call: Call) -> np.ndarray:
    return _activate(call, call.inputs[0], call.layer.activation)


@rule(keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)
def _elementwise(call: Call) -> np.ndarray:
    return _keep_if_zero_stays(call, call.inputs[0], call.layer, call.layer.name)


@rule(keras.layers.Softmax)
def _softmax(call: Call) -> np.ndarray:
    call.freeze(call.inputs[0], f"{call.layer.name!r} mixes channels")
    return call.inputs[0]


@rule(
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.ActivityRegularization,
    keras.layers.Identity,
)
def _identity(call: Call) -> np.ndarray:
    return call.inputs[0]


@rule(
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling2D,
)
def _spatial(call: Call) -> np.ndarray:
    axis = _channel_axis(call.layer)
    return _on_axis(call.along(call.inputs[0], axis), axis, rank=len(call.input_shapes[0]))


@rule(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
def _global_pooling(call: Call) -> np.ndarray:
    axis = _channel_axis(call.layer)
    channels = call.along(call.inputs[0], axis)
    return _on_axis(channels, axis, rank=3) if call.layer.keepdims else channels


@rule(
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Multiply,
    keras.layers.Maximum,
    keras.layers.Minimum,
)
def _merge(call: Call) -> np.ndarray:
    for other in call.inputs[1:]:
        call.tie(call.inputs[0], other)
    return np.broadcast_arrays(*call.inputs)[0]


@rule(keras.layers.Concatenate)
def _concatenate(call: Call) -> np.ndarray:
    axis = call.layer.axis - 1 if call.layer.axis > 0 else call.layer.axis
    rank = len(call.input_shapes[0])
    parts = []
    for channels, shape in zip(call.inputs, call.input_shapes, strict=True):
        if shape[axis] is None:
            return call.give_up(f"{call.layer.name!r} joins an axis of unknown size")[0]
        target = list(channels.shape)
        target[axis] = shape[axis]
        parts.append(np.broadcast_to(channels, target))
    others = [index for index in range(rank) if index != axis % rank]
    common = np.broadcast_shapes(*[tuple(part.shape[index] for index in others) for part in parts])
    widened = [np.broadcast_to(part, _insert(common, axis % rank, part.shape[axis])) for part in parts]
    return _compress(np.concatenate(widened, axis=axis))


@rule(keras.layers.Flatten)
def _flatten(call: Call) -> np.ndarray:
    shape = [size for size in call.input_shapes[0] if size is not None]
    if len(shape) < len(call.input_shapes[0]):
        return call.give_up(f"{call.layer.name!r} flattens an axis of unknown size")[0]
    channels = np.broadcast_to(call.inputs[0], shape)
    if call.layer.data_format == "channels_first" and len(shape) > 1:
        channels = np.moveaxis(channels, 0, -1)
    return _compress(channels.reshape(-1))


def _activate(call: Call, channels: np.ndarray, activation: Any) -> np.ndarray:
    if activation is None or activation is keras.activations.linear:
        return channels
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in _MIXING:
        call.freeze(channels, f"{name} in {call.layer.name!r} mixes channels")
        return channels
    if name not in _ELEMENTWISE or activation is not getattr(keras.activations, name, None):
        call.freeze(channels, f"activation {name} in {call.layer.name!r} is not known to work element by element")
        return channels
    return _keep_if_zero_stays(call, channels, activation, name)


def _keep_if_zero_stays(call: Call, channels: np.ndarray, function: Callable[..., Any], name: str) -> np.ndarray:
    at_zero = float(keras.ops.convert_to_numpy(function(keras.ops.zeros((1,))))[0])
    if at_zero != 0.0:
        call.freeze(channels, f"{name}(0) = {at_zero:.3g}: a removed channel would leave a constant behind")
    return channels


def _channel_axis(layer: keras.layers.Layer) -> int:
    return 0 if layer.data_format == "channels_first" else -1


def _on_axis(channels: np.ndarray, axis: int, rank: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return channels.reshape(shape)


def _insert(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis:])


def _compress(channels: np.ndarray) -> np.ndarray:
    """Drop axes along which the channels do not change to size 1."""
    for axis in range(channels.ndim):
        first = np.take(channels, [0], axis=axis)
        if np.array_equal(np.broadcast_to(first, channels.shape), channels):
            channels = first
    return channels


_MIXING = {"softmax", "log_softmax", "sparsemax", "glu"}
_ELEMENTWISE = {
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign",
    "sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink", "threshold",
}  # fmt: skip
