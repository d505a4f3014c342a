"""What the int8 operators of LiteRT do with the numbers of each kind of layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import keras

from tfprune.graph import Node
from tfprune.graph.kinds import exact_kind
from tfprune.quantization.aware_layers import KeepFloat, QuantizeActivation, QuantizeWeights
from tfprune.quantization.idle import does_nothing, only_picks
from tfprune.rewriting.computed_kernels import ComputedKernels


class Kind(Enum):
    """What an operator does to the numbers on the grid of its inputs."""

    KERNEL = auto()
    """Sums products with weights, exactly. The next BatchNormalization and ReLU are part of the operator."""
    AFFINE = auto()
    """Scales and shifts each channel. It becomes a depthwise convolution, and the next ReLU part of it."""
    ARITHMETIC = auto()
    """Combines tensors or numbers. The next ReLU is part of the operator."""
    COMPUTE = auto()
    """Makes new numbers, which need a range of their own."""
    RECTIFIER = auto()
    """A ReLU or ReLU6: part of the operator before it, if nothing else reads that one's output."""
    BOUNDED = auto()
    """Makes numbers whose range the format fixes."""
    MOVE = auto()
    """Passes numbers on as they are; several inputs must share a range."""
    AVERAGE = auto()
    """Rounds within the range of its input."""
    NOTHING = auto()
    """Does nothing at inference."""
    FLOAT = auto()
    """Stays in float."""


@dataclass(frozen=True)
class Rule:
    """What becomes of one call.

    Attributes:
        kind: What it does to numbers.
        channel_axes: For a kernel, by the name of its attribute, the axes along which each position has its scale.
        is_computed: Whether another layer makes the kernel: what is put into it would not be what that layer makes.
        one_scale: Whether all channels have the same scale, as weights that are equal must stay so.
        range: For numbers whose range is fixed, (smallest, largest).
        reason: Why it stays in float.
        bounds_step: Whether the operator refuses steps that are much finer than those of what it reads.
        is_coarse: Whether the operator computes with coarser factors than the model: some numbers are a step off.
    """

    kind: Kind
    channel_axes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    is_computed: bool = False
    one_scale: bool = False
    range: tuple[float, float] | None = None
    reason: str = ""
    bounds_step: bool = False
    is_coarse: bool = False


_ASKED_FOR = "left in float on request"
_SIGMOID, _TANH = (0.0, 255 / 256), (-1.0, 127 / 128)
_AFFINE = {"Rescaling", "LayerScale"}
_ARITHMETIC = ("Add", "Multiply", "Subtract")
_COMPUTE = {
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D", "Mean", "PReLU", "Gelu", "Argmax", "Argmin"),
}
_MOVE = {
    *("Concatenate", "Flatten", "Reshape", "Permute", "RepeatVector", "MaxPooling1D"),
    *("MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D"),
    *("Cropping2D", "UpSampling1D", "Squeeze", "ExpandDims", "Transpose", "GetItem", "Max", "MaxPool"),
}
_AVERAGE = {"AveragePooling1D", "AveragePooling2D", "AveragePool"}
_ACTIVATIONS: dict[str, Rule] = {
    "linear": Rule(Kind.NOTHING),
    "relu": Rule(Kind.RECTIFIER),
    "relu6": Rule(Kind.RECTIFIER),
    "sigmoid": Rule(Kind.BOUNDED, range=_SIGMOID),
    "softmax": Rule(Kind.BOUNDED, range=_SIGMOID),
    "tanh": Rule(Kind.BOUNDED, range=_TANH),
    "gelu": Rule(Kind.COMPUTE),
    "leaky_relu": Rule(Kind.COMPUTE, is_coarse=True),
    "hard_silu": Rule(Kind.COMPUTE, bounds_step=True, is_coarse=True),
}


def rule_of(node: Node) -> Rule:
    """Return what becomes of one call.

    Args:
        node: The call, in a model without nested models.

    Returns:
        The rule. What is not known stays in float, and the rule says so.

    Example:

    >>> from tfprune.graph import walk
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Softmax()])
    >>> [rule_of(node).kind.name for node in walk(model)]
    ['KERNEL', 'BOUNDED']
    """
    rule = _class_rule(node)
    if rule.kind is not Kind.FLOAT:
        return rule
    if does_nothing(node):
        return Rule(Kind.NOTHING)
    return Rule(Kind.MOVE) if only_picks(node) else rule


def _class_rule(node: Node) -> Rule:
    """What is known by the class of a layer or operation."""
    operation = node.operation
    name, ours = type(operation).__name__, type(operation).__module__.startswith(("keras.", "tfprune."))
    if isinstance(operation, KeepFloat):
        return Rule(Kind.FLOAT, reason=_ASKED_FOR)
    if isinstance(operation, QuantizeWeights):
        kind, is_computed = Kind.KERNEL if operation.channel_axes else Kind.AFFINE, operation.maker is not None
        return Rule(kind, operation.channel_axes, is_computed, operation.one_scale)
    if isinstance(operation, QuantizeActivation):
        return Rule(Kind.NOTHING)
    if isinstance(operation, ComputedKernels):
        return _computed(operation)
    if not ours:
        return Rule(Kind.FLOAT, reason=f"{name} is a class of its own, whose numbers are not known")
    if getattr(operation, "data_format", None) == "channels_first":
        return Rule(Kind.FLOAT, reason="LiteRT has no integer operators for channels_first")
    scale_axes = exact_kind(operation).scale_axes
    if scale_axes is not None:
        return Rule(Kind.KERNEL, channel_axes=scale_axes)
    found = _SPECIAL[name](node) if name in _SPECIAL else _by_name(name)
    if found.kind is Kind.AFFINE and not keras.backend.is_float_dtype(node.inputs[0].dtype):
        return Rule(Kind.FLOAT, reason="it reads whole numbers: cast them to float32 before it with keras.ops.cast")
    return found


def _computed(layer: ComputedKernels) -> Rule:
    """A kernel that another layer makes: the rule of the layer that computes with it, with scales that suit."""
    inner: Any = layer.layer
    if isinstance(inner, KeepFloat):
        return Rule(Kind.FLOAT, reason=_ASKED_FOR)
    scale_axes, (maker, *_) = exact_kind(inner).scale_axes, layer.makers
    if scale_axes is None or len(layer.positions) > 1 or getattr(inner, "data_format", None) == "channels_first":
        return Rule(Kind.FLOAT, reason=f"no integer form of {type(inner).__name__} is known")
    if getattr(maker, "channel_axes", ()):
        return Rule(Kind.KERNEL, scale_axes, is_computed=True)
    # The converter can be told of the scales of channels that are last.
    told: dict[str, tuple[int, ...]] = {name: axes if axes == (-1,) else () for name, axes in scale_axes.items()}
    return Rule(Kind.KERNEL, told, is_computed=True, one_scale=True)


def _by_name(name: str) -> Rule:
    tables = {
        Kind.AFFINE: _AFFINE,
        Kind.COMPUTE: _COMPUTE,
        Kind.MOVE: _MOVE,
        Kind.AVERAGE: _AVERAGE,
    }
    for kind, names in tables.items():
        if name in names:
            return Rule(kind)
    return Rule(Kind.FLOAT, reason=f"no integer form of {name} is known")


def activation_rule(activation: Any) -> Rule:
    """Return what becomes of an activation function of Keras.

    Args:
        activation: The function, such as `keras.activations.relu`.

    Returns:
        The rule.

    Example:

    >>> activation_rule(keras.activations.tanh).range
    (-1.0, 0.9921875)
    """
    name = keras.activations.serialize(activation)
    unknown = Rule(Kind.FLOAT, reason=f"no integer form of the activation {name!r} is known")
    return _ACTIVATIONS.get(name, unknown) if isinstance(name, str) else unknown


def _relu_layer(node: Node) -> Rule:
    layer: Any = node.operation
    if layer.threshold == 0 and layer.negative_slope == 0 and layer.max_value in (None, 6):
        return Rule(Kind.RECTIFIER)
    return Rule(Kind.FLOAT, reason="no integer form of a ReLU with these bounds is known")


def _normalization(node: Node) -> Rule:
    layer: Any = node.operation
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    rank = len(node.inputs[0].shape)
    if [axis % rank for axis in axes] == [rank - 1] or not axes:
        return Rule(Kind.AFFINE)
    return Rule(Kind.FLOAT, reason=f"it normalizes along axis {layer.axis}, not along the channels")


def _softmax_axis(node: Node) -> Rule:
    operation: Any = node.operation
    if operation.axis in (-1, len(node.inputs[0].shape) - 1):
        return Rule(Kind.BOUNDED, range=_SIGMOID)
    return Rule(Kind.FLOAT, reason=f"LiteRT's softmax works on the last axis, not on {operation.axis}")


def _arithmetic(node: Node) -> Rule:
    """Tensors, or a tensor and a number; an array of constants would be rounded to int8 without our knowing how."""
    flat = keras.tree.flatten((node.args, dict(node.kwargs)))
    others = [value for value in flat if not isinstance(value, keras.KerasTensor)]
    if all(isinstance(value, (int, float)) for value in others):
        return Rule(Kind.ARITHMETIC)
    return Rule(Kind.FLOAT, reason="it computes with an array of constants")


def _of_tensors(kind: Kind) -> Callable[[Node], Rule]:
    def rule(node: Node) -> Rule:
        flat = keras.tree.flatten((node.args, dict(node.kwargs)))
        if all(isinstance(value, keras.KerasTensor) for value in flat):
            return Rule(kind)
        return Rule(Kind.FLOAT, reason="it computes with a constant, which has no place on the scale of the tensor")

    return rule


def _dot(node: Node) -> Rule:
    layer: Any = node.operation
    return Rule(Kind.FLOAT, reason="it normalizes its inputs") if layer.normalize else Rule(Kind.COMPUTE)


def _upsampling(node: Node) -> Rule:
    kinds = {"nearest": Kind.MOVE, "bilinear": Kind.AVERAGE}
    how: Any = node.operation
    if how.interpolation == "bilinear" and any(size & (size - 1) for size in how.size):
        # The int8 operator counts positions in units of 1/1024: by a factor of 3 it was 4 levels off.
        return Rule(Kind.FLOAT, reason="LiteRT interpolates exactly in int8 by powers of two only")
    if how.interpolation in kinds:
        return Rule(kinds[how.interpolation], is_coarse=how.interpolation == "bilinear")
    return Rule(Kind.FLOAT, reason=f"no integer form of {how.interpolation} interpolation is known")


def _zero_padding(node: Node) -> Rule:
    operation: Any = node.operation
    if operation.mode == "constant" and not node.kwargs.get("constant_values"):
        return Rule(Kind.MOVE)
    return Rule(Kind.FLOAT, reason="it pads with something else than zeros")


_SPECIAL: dict[str, Callable[[Node], Rule]] = {
    "Activation": lambda node: activation_rule(node.operation.activation),
    "ReLU": _relu_layer,
    "Relu": lambda node: Rule(Kind.RECTIFIER),
    "Relu6": lambda node: Rule(Kind.RECTIFIER),
    "Sigmoid": lambda node: Rule(Kind.BOUNDED, range=_SIGMOID),
    "Tanh": lambda node: Rule(Kind.BOUNDED, range=_TANH),
    "HardSilu": lambda node: _ACTIVATIONS["hard_silu"],
    **dict.fromkeys(("LeakyReLU", "LeakyRelu"), lambda node: _ACTIVATIONS["leaky_relu"]),
    "Softmax": _softmax_axis,
    "BatchNormalization": _normalization,
    "Normalization": _normalization,
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    **dict.fromkeys(("Maximum", "Minimum"), _of_tensors(Kind.MOVE)),
    "Matmul": _of_tensors(Kind.COMPUTE),
    "Dot": _dot,
    "UpSampling2D": _upsampling,
    "Pad": _zero_padding,
}
