"""A quantize-aware model as plain layers: to train on in float, or for the converter."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import Node, check_traceable, walk
from tfprune.quantization.aware import is_quantize_aware, names_of_outputs
from tfprune.quantization.aware_layers import KeepFloat, QuantizeActivation, QuantizeWeights, scale_and_shift
from tfprune.quantization.barriers import Barrier
from tfprune.quantization.int8_rules import Kind
from tfprune.quantization.normalization import folded_weights, per_channel
from tfprune.quantization.operator_forms import kernel_form, not_uniform, operator_form, reshaped
from tfprune.quantization.placement import Operators
from tfprune.quantization.stable_activations import activation_change
from tfprune.rewriting.copies import Copies
from tfprune.rewriting.engine import Rewriter

layers = keras.layers


def strip(model: keras.Model) -> keras.Model:
    """Return the plain float model of a quantize-aware one, with what it learned.

    Args:
        model: A model from `quantize_aware`; it is not changed.

    Returns:
        A functional model that loads without tfprune, compiled like the model, with a new optimizer.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not quantize-aware.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in strip(tfprune.quantize_aware(model)).layers]
    ['InputLayer', 'Dense', 'ReLU']
    """
    _check_aware(model)
    return _Stripper(model).rewrite(model)


def _unrounded_ends(model: keras.Model) -> dict[int, str]:
    """The names of outputs by the keys of the calls that make them, but for rounding."""
    makers = {id(tensor): node for node in walk(model) for tensor in node.outputs}
    ends = {}
    for tensor, name in zip(model.outputs, names_of_outputs(model), strict=False):
        while id(tensor) in makers and isinstance(makers[id(tensor)].operation, QuantizeActivation):
            tensor = makers[id(tensor)].inputs[0]
        if id(tensor) in makers:  # an input that is an output has been rounded on the way, and is no call's
            ends[makers[id(tensor)].key] = name
    return ends


class _Stripper(Rewriter):
    flat = True

    def __init__(self, model: keras.Model) -> None:
        super().__init__(output_names=names_of_outputs(model))
        self._last = _unrounded_ends(model)

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = node.operation
        named = {"name": self._last[node.key]} if node.key in self._last else {}
        if isinstance(layer, QuantizeActivation):
            return [args[0], args[0]]  # nothing reads the second, the step of the levels
        if isinstance(layer, KeepFloat):
            return self.copies.of(layer.layer, **named)(*args, **kwargs)
        if not isinstance(layer, QuantizeWeights):
            return self.copies.of(layer, **named)(*args, **kwargs)
        if layer.normalization is None:
            made = self._plain(layer, **named)(args[0])
        else:
            made = self.copies.of(layer.normalization, **named)(self._plain(layer)(args[0]))
        return [made, made]  # nor the unit of the sums

    def _plain(self, layer: QuantizeWeights, **named: str) -> Any:
        """The layer inside, with the kernel that is made for it if one is."""
        if layer.maker is None:
            return self.copies.of(layer.layer, **named)
        ((name, _),) = layer.channel_axes.items()
        weights = _variables(layer, layer.trained(name))
        return self.copies.once(("made", id(layer)), lambda: self.copies.new(layer.layer, weights, **named))


def lowered(model: keras.Model, integer_doors: bool = False) -> keras.Model:
    """Return a quantize-aware model as TensorFlow's converter has to see it to write the int8 file that it means.

    BatchNormalization is folded into the weights before it, or is a depthwise convolution of size 1; the ranges are
    constants. The converter rounds the weights itself, in the same way.

    Args:
        model: A model from `quantize_aware`; it is not changed.
        integer_doors: Whether what layers in float read of the model's inputs, or make of its outputs, is rounded.

    Returns:
        A functional model for a batch of 1.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not quantize-aware, or has not seen a training batch yet.

    Example:

    >>> import numpy as np
    >>> import tfprune
    >>> aware = tfprune.quantize_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="classes")]))
    >>> aware.compile("sgd", "mse")
    >>> history = aware.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    >>> [layer.name for layer in lowered(aware).layers if isinstance(layer, keras.layers.Dense)]
    ['classes']
    """
    _check_aware(model)
    return _Lowerer(model, integer_doors).rewrite(model, trains=False)


class _Lowerer(Rewriter):
    flat = True

    def __init__(self, model: keras.Model, integer_doors: bool) -> None:
        super().__init__()
        self._name, self._operators, self._integer_doors = model.name, Operators.of(model), integer_doors
        calls = list(self._operators.calls())
        self._rules = {node.key: rule for node, rule in calls}
        parts = *self._operators.normalized.values(), *self._operators.rectified.values()
        self._gone = {node.key for node in parts}
        self._made_in_float = {id(t) for node, rule in calls if rule.kind is Kind.FLOAT for t in node.outputs}
        self._makers = {id(tensor): node for node, _ in calls for tensor in node.outputs}
        self._unrounded: dict[int, keras.KerasTensor] = {}  # what a rounded tensor was made of, by its id

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, rule = node.operation, self._rules[node.key]
        if node.key in self._gone:
            return args[0]
        if isinstance(layer, QuantizeActivation):
            if not (layer.rounds or self._integer_doors):
                # An output would lose the name of the layer that made it. Nothing reads the second, the step.
                return [self._barrier(args[0])] * 2
            value = self._barrier(args[0]) if id(node.inputs[0]) in self._made_in_float else args[0]
            value = self._apart_from_rounding(node.inputs[0], value)
            self._unrounded[id(node.outputs[0])] = value
            return list(self.copies.once(("range", id(layer)), lambda: _constant_range(layer, self._name))(value))
        if rule.kind is Kind.FLOAT:
            args, kwargs = self._apart(node.inputs, (args, kwargs))
        if rule.kind is Kind.NOTHING:
            return [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, keras.KerasTensor)]
        if rule.kind is Kind.KERNEL:
            after = self._operators.normalized.get(node.key)
            normalization = layer.normalization if after is None else after.operation
            rectifier = self._operators.rectified.get(node.key)
            activation = self.copy(rectifier.operation) if rectifier else keras.activations.linear
            made = _kernel(layer, normalization, self.copies)(args[0], activation)
            return [made, made]  # nothing reads the second, the unit of the sums
        if rule.kind is Kind.AFFINE:
            made = _depthwise(layer.layer, self.copies, args[0])
            return [made] * len(node.outputs)
        return self.copy(layer.layer if isinstance(layer, KeepFloat) else layer)(*args, **kwargs)

    def _apart_from_rounding(self, old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        """What a tensor is rounded from, or an operator behind it if it is rounded to another range elsewhere.

        The converter cannot round twice in a row. Of what an operator rounds to the range that the format fixes, as a
        sigmoid does, it rescales the result by itself if it is told of one other range alone.
        """
        maker = self._makers.get(id(old))
        if maker is None or self._rules[maker.key].kind not in (Kind.NOTHING, Kind.MOVE):
            return new
        if id(old) in self._unrounded and len(self._operators.readers[id(old)]) == 1:
            return self._unrounded[id(old)]
        return _depthwise(layers.Rescaling(1.0, name=self.copies.unused("rescale")), self.copies, new)

    def copy(self, layer: Any) -> Any:
        form = self.copies.once(("form", id(layer)), lambda: operator_form(layer))
        return form or self.copies.of(layer, **activation_change(layer))

    def _apart(self, old: Sequence[keras.KerasTensor], new: Any) -> Any:
        """Arguments of a call in float, apart from what is int8."""
        numbers = iter(old)

        def part(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            apart = id(next(numbers)) in self._made_in_float or not keras.backend.is_float_dtype(value.dtype)
            return value if apart else self._barrier(value)

        return keras.tree.map_structure(part, new)

    def _barrier(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        return Barrier(name=self.copies.unused("barrier"))(tensor)


def left_in_float(model: keras.Model) -> dict[str, str]:
    """Return the layers of a quantize-aware model that stay in float, and why.

    Args:
        model: A model from `quantize_aware`.

    Returns:
        The reasons by the layers' names.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ELU(name="elu")])
    >>> left_in_float(tfprune.quantize_aware(model))
    {'elu': 'no integer form of ELU is known'}
    """
    ends = _unrounded_ends(model)  # the layer that rounds an output has its name
    found = {}
    for node, rule in Operators.of(model).calls():
        if rule.kind is Kind.FLOAT:
            layer = node.operation.layer if isinstance(node.operation, KeepFloat) else node.operation
            found[ends.get(node.key, layer.name)] = rule.reason
    return found


def computes_coarsely(model: keras.Model) -> bool:
    """Return whether a quantize-aware model has a layer of which LiteRT makes some numbers a step larger or smaller.

    Args:
        model: A model from `quantize_aware`.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.LeakyReLU()])
    >>> computes_coarsely(tfprune.quantize_aware(model))
    True
    """
    return any(rule.is_coarse for rule in Operators.of(model).rules)


def output_layers(model: keras.Model) -> list[Any]:
    """Return the layers of the original model that make the outputs of a quantize-aware one.

    Args:
        model: A model from `quantize_aware`.

    Returns:
        One for each output, as it was before activations were split off.

    Example:

    >>> import tfprune
    >>> layer = keras.layers.Dense(3, activation="softmax", name="classes")
    >>> [layer.name for layer in output_layers(tfprune.quantize_aware(keras.Sequential([keras.Input((4,)), layer])))]
    ['classes']
    """
    makers = {id(tensor): node for node in walk(model) for tensor in node.outputs}

    inputs = {id(layer.output): layer for layer in model.layers if isinstance(layer, layers.InputLayer)}

    def layer_of(tensor: keras.KerasTensor) -> Any:
        if id(tensor) in inputs:
            return inputs[id(tensor)]
        node = makers[id(tensor)]
        layer = node.operation
        if isinstance(layer, QuantizeActivation):
            return layer_of(node.inputs[0])
        if isinstance(layer, layers.Activation):
            before = layer_of(node.inputs[0])
            return before if layer.name.startswith(f"{before.name}_") else layer
        if isinstance(layer, QuantizeWeights):
            return layer.normalization or layer.layer
        return layer.layer if isinstance(layer, KeepFloat) else layer

    return [layer_of(tensor) for tensor in model.outputs]


def _check_aware(model: keras.Model) -> None:
    check_traceable(model)
    if not is_quantize_aware(model):
        raise ValueError(f"The model {model.name!r} is not quantize-aware. Give what tfprune.quantize_aware returned.")


def _constant_range(layer: QuantizeActivation, name: str) -> "_ConstantRange":
    if layer.range is None:
        raise ValueError(
            f"The model {name!r} has not seen data since quantize_aware, so {layer.name!r} has no range. "
            "Fit it for at least one step, then export."
        )
    return _ConstantRange(*layer.range, dtype=layer.dtype_policy)


class _ConstantRange(keras.layers.Layer):
    """Rounds over a range by the operation that the converter knows, with the outputs of `QuantizeActivation`."""

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        rounded = keras.quantizers.fake_quant_with_min_max_vars(inputs, self.low, self.high)
        return rounded, ops.cast((self.high - self.low) / 255, "float32")

    def compute_output_spec(self, inputs: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype), keras.KerasTensor((), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "low": self.low, "high": self.high}


def _kernel(layer: QuantizeWeights, normalization: Any, copies: Copies) -> Any:
    inner = layer.layer
    if layer.maker is None:
        if normalization is not None:
            return kernel_form(inner, list(folded_weights(inner, normalization)), copies)
        weights = [ops.convert_to_numpy(variable) for variable in inner.variables]
        return copies.once(("kernel", id(inner)), lambda: kernel_form(inner, weights, copies))
    ((name, axes),) = layer.channel_axes.items()
    # Rounded already: what is equal is then rounded to equal numbers, whatever its channel is multiplied by.
    kernel = ops.convert_to_numpy(layer.quantized(name))
    weights = _variables(layer, kernel)
    largest = np.full([kernel.shape[axis] for axis in axes], np.abs(layer.trained(name)).max())
    if normalization is not None:
        weights = list(folded_weights(inner, normalization, kernel))
        factor = np.abs(ops.convert_to_numpy(scale_and_shift(normalization)[0]))
        largest = largest * np.where(factor > 0, factor, 1.0)
    return kernel_form(inner, weights, copies, largest.astype(np.float32) if layer.one_scale else None)


def _variables(layer: QuantizeWeights, kernel: Any) -> list[Any]:
    """The weights of the layer inside, with another kernel."""
    ((name, _),) = layer.channel_axes.items()
    own = getattr(layer.layer, name)
    return [ops.convert_to_numpy(kernel if variable is own else variable) for variable in layer.layer.variables]


def _depthwise(layer: Any, copies: Copies, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What scales and shifts channels, as a convolution: one operator, which sums exactly before it rounds."""
    shape = tuple(tensor.shape[1:])
    scale, shift = (values.astype(np.float32) for values in per_channel(layer, shape[-1]))
    kernel, bias = scale.reshape(1, 1, -1, 1), not_uniform(shift)
    template = layers.DepthwiseConv2D(1, name=layer.name, dtype=layer.dtype_policy)
    if len(shape) == 3:
        return copies.new(template, [kernel, bias])(tensor)
    images = reshaped(tensor, (-1, 1, shape[-1]), copies)
    return reshaped(copies.new(template, [kernel, bias])(images), shape, copies)
