"""A model as one flat graph, in which every call does one thing."""

from collections.abc import Callable
from typing import Any

import keras

from tfprune.graph import Node, nested
from tfprune.graph.exclude import Chosen, Exclude, resolve_exclude
from tfprune.graph.kinds import exact_kind
from tfprune.quantization.aware_layers import KeepFloat
from tfprune.rewriting.computed_kernels import ComputedKernels
from tfprune.rewriting.copies import Copies
from tfprune.rewriting.engine import Rewriter

layers = keras.layers
Step = Callable[[Any], Any]


def flattened(model: keras.Model, exclude: Exclude = None) -> keras.Model:
    """Return a copy of a model without nested models, in which every call does one thing.

    Activations stand behind the layers that they were part of, separable convolutions are two convolutions, and
    `silu(x)` is a product. It computes the same.

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.
        exclude: Layers that come back whole, inside `KeepFloat`, as does a layer around one that cannot be opened; see
            `tfprune.quantize_aware`.

    Returns:
        A functional model, compiled like the model.

    Example:

    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.SeparableConv2D(4, 3, activation="relu")])
    >>> [type(layer).__name__ for layer in flattened(model).layers]
    ['InputLayer', 'DepthwiseConv2D', 'Conv2D', 'Activation']
    """
    return _Flattener(resolve_exclude(model, exclude)).rewrite(model)


class _Flattener(Rewriter):
    flat = True

    def __init__(self, excluded: Chosen) -> None:
        super().__init__()
        self._excluded = excluded

    def opened(self, node: Node) -> keras.Model | None:
        closed = self._excluded(node.operation) or isinstance(node.operation, ComputedKernels)
        return None if closed else nested(node)

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._excluded.touches(node.operation):
            return self._marked(node.operation)(*args, **kwargs)
        steps = _steps(node.operation, self.copies)
        if steps is None:
            return self.copy(node.operation)(*args, **kwargs)
        value = args[0]
        for step in steps:
            value = step(value)
        return value

    def _marked(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        def make() -> keras.layers.Layer:
            if isinstance(layer, ComputedKernels):
                makers = [self.copies.of(maker) for maker in layer.makers]
                inner = self._marked(layer.layer)
                return ComputedKernels(inner, layer.positions, makers, name=layer.name, dtype=layer.dtype_policy)
            name = self.copies.unused(f"float_{layer.name}")
            return KeepFloat(self.copy(layer), name=name, dtype=layer.dtype_policy)

        made: keras.layers.Layer = self.copies.once(("float", id(layer)), make)
        return made


def _steps(operation: Any, copies: Copies) -> list[Step] | None:
    """The parts of a call, one after the other; `None` if it is one part."""
    if isinstance(operation, ComputedKernels):
        return _computed(operation, copies)
    kind, name, known = type(operation), type(operation).__name__, exact_kind(operation)
    if kind in _OF_TWO:
        return [lambda tensors: _two_by_two(operation, tensors, copies)]
    if kind is layers.Average:
        return [lambda tensors: _average(operation, tensors, copies)]
    if known.is_separable and kind.__module__.startswith("keras."):
        return [*copies.once(("separable", id(operation)), lambda: _separated(operation, copies))]
    if known.scale_axes is not None and known.activation_of(operation) is not keras.activations.linear:
        layer = copies.of(operation, activation="linear", activity_regularizer=None)
        return [layer, *_activation(operation.activation, operation, copies)]
    if kind is layers.Activation and operation.activation in _COMPOSED:
        return _activation(operation.activation, operation, copies)
    if name == "CustomScaleLayer" and kind.__module__.startswith("keras."):  # of InceptionResNetV2
        return [lambda tensors: _scaled_sum(operation, tensors, copies)]
    if name in _COMPOSED_OPERATIONS and kind.__module__.startswith("keras."):
        return _COMPOSED[_COMPOSED_OPERATIONS[name]](name.lower(), copies)
    return None


def _computed(layer: ComputedKernels, copies: Copies) -> list[Step] | None:
    """The parts of a layer whose kernel is made by another: around that which holds it stands the wrapper."""
    inner, known = layer.layer, exact_kind(layer.layer)
    if known.scale_axes is None and not (known.is_separable and type(inner).__module__.startswith("keras.")):
        return None
    steps = _steps(inner, copies) or [copies.of(inner)]
    place = len(known.kernels) - 1  # of two kernels the depthwise one shares nothing

    def wrapped() -> ComputedKernels:
        makers = [copies.of(maker) for maker in layer.makers]
        return ComputedKernels(steps[place], [0], makers, name=layer.name, dtype=layer.dtype_policy)

    steps[place] = copies.once(("computed", id(layer)), wrapped)
    return steps


def _activation(activation: Any, layer: keras.layers.Layer, copies: Copies) -> list[Step]:
    name = layer.name if isinstance(layer, layers.Activation) else f"{layer.name}_{_name(activation)}"
    if activation in _COMPOSED:
        return _COMPOSED[activation](name, copies)
    # A layer regularizes what it returns, which is what its activation makes.
    options = {"activity_regularizer": layer.activity_regularizer, "dtype": layer.dtype_policy}
    return [layers.Activation(activation, name=copies.unused(name), **options)]


def _name(activation: Any) -> str:
    known = keras.activations.serialize(activation)
    return known if isinstance(known, str) else "activation"


def _silu(name: str, copies: Copies) -> list[Step]:
    def silu(x: Any) -> Any:
        gate = layers.Activation("sigmoid", name=copies.unused(f"{name}_gate"))(x)
        return layers.Multiply(name=copies.unused(name))([x, gate])

    return [silu]


def _hard_sigmoid(name: str, copies: Copies) -> list[Step]:
    # Layers, not operations: those would get names of their own accord, which the model may have already.
    return [
        lambda x: layers.Rescaling(1.0, 3.0, name=copies.unused(f"{name}_shift"))(x),
        lambda x: layers.ReLU(6.0, name=copies.unused(f"{name}_relu6"))(x),
        lambda x: layers.Rescaling(1.0 / 6.0, name=copies.unused(f"{name}_scale"))(x),
    ]


def _two_by_two(layer: keras.layers.Layer, tensors: Any, copies: Copies) -> keras.KerasTensor:
    """Operators take two tensors, and each rounds what it makes."""
    first, *others = tensors
    for other in others:
        first = type(layer)(name=copies.unused(layer.name), dtype=layer.dtype_policy)([first, other])
    return first


def _average(layer: keras.layers.Layer, tensors: Any, copies: Copies) -> keras.KerasTensor:
    total = layers.Add(name=f"{layer.name}_sum", dtype=layer.dtype_policy)
    mean = layers.Rescaling(1.0 / len(tensors), name=copies.unused(layer.name), dtype=layer.dtype_policy)
    return mean(_two_by_two(total, tensors, copies))


def _scaled_sum(layer: Any, tensors: Any, copies: Copies) -> keras.KerasTensor:
    scaled = layers.Rescaling(layer.scale, name=copies.unused(f"{layer.name}_scaled"), dtype=layer.dtype_policy)
    total = layers.Add(name=copies.unused(layer.name), dtype=layer.dtype_policy)
    return total([tensors[0], scaled(tensors[1])])


def _separated(layer: Any, copies: Copies) -> list[Step]:
    """A separable convolution as its two convolutions, with its weights."""
    first, second = (getattr(layers, f"{name}{layer.rank}D") for name in ("DepthwiseConv", "Conv"))
    config = layer.get_config()
    shared = {key: config[key] for key in ("data_format", "dtype", "trainable")}
    depthwise = first(
        **{key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")},
        **{key: config[key] for key in ("depthwise_regularizer", "depthwise_constraint")},
        **shared,
        use_bias=False,
        name=f"{layer.name}_depthwise",
    )
    pointwise = second(
        layer.filters,
        1,
        **{key: config[key] for key in ("use_bias", "bias_regularizer", "bias_constraint")},
        kernel_regularizer=config["pointwise_regularizer"],
        kernel_constraint=config["pointwise_constraint"],
        **shared,
        name=layer.name,
    )
    kernel, *rest = layer.variables
    steps = [copies.new(depthwise, [kernel]), copies.new(pointwise, rest)]
    if layer.activation is not keras.activations.linear:
        steps += _activation(layer.activation, layer, copies)
    return steps


_OF_TWO = (layers.Add, layers.Multiply)
_COMPOSED: dict[Any, Callable[[str, Copies], list[Step]]] = {
    keras.activations.silu: _silu,
    keras.activations.hard_sigmoid: _hard_sigmoid,
}
_COMPOSED_OPERATIONS = {"Silu": keras.activations.silu, "HardSigmoid": keras.activations.hard_sigmoid}
