"""Layers that compute as int8 will, while they train in float."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfprune.graph import Call, Node, rule
from tfprune.graph.costs import Sizes, cost, multiply_accumulates
from tfprune.quantization.rounding import (
    as_stored,
    divided,
    fake_quantize_weights,
    straight_through,
    weight_levels,
)
from tfprune.rewriting.computed_kernels import holding

Range = tuple[float, float]

_LEAST_WIDTH = 2.0**-17  # of a range: some kernels abort at steps below 2**-26
_LARGEST_BIAS = 2.0**30  # in the file
_INSIDE = ("normalization", "maker")


@keras.saving.register_keras_serializable(package="tfprune")
class QuantizeActivation(keras.layers.Layer):
    """Rounds its input to 256 levels, over a range that follows what passes in training.

    The range is a moving average of the smallest and largest values of each training batch, always with zero in it;
    the first batch sets it. Until then, at inference, the input passes unchanged. The gradient passes the rounding
    unchanged. Numbers that are infinite leave the range as it is, and so does NaN, which passes. One layer may round
    several tensors that must share a range, as those that are concatenated: each has a site of its own, and the range
    covers all.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, https://arxiv.org/abs/1712.05877

    Args:
        sites: How many tensors share the range.
        momentum: The weight of the past in the moving averages, from 0 to below 1.
        fixed: A range (smallest, largest) known beforehand, such as that of a sigmoid; `None` to learn it.
        rounds: Whether it rounds; else it only learns the range, for a file whose inputs and outputs are integers.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: If `sites` is below 1, `momentum` out of range, or `fixed` does not hold zero.

    Example:

    >>> layer = QuantizeActivation()
    >>> batch = keras.ops.array([[0.0, 0.1004, 2.55]])
    >>> rounded, step = layer(batch, training=True)
    >>> [round(float(value), 3) for value in rounded[0]], round(float(step), 3)
    ([0.0, 0.1, 2.55], 0.01)
    >>> [round(float(value), 3) for value in layer(batch * 2)[0][0]]  # at inference the range stays
    [0.0, 0.2, 2.55]
    """

    def __init__(
        self,
        sites: int = 1,
        momentum: float = 0.99,
        fixed: Sequence[float] | None = None,
        rounds: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sites < 1:
            raise ValueError(f"sites must be 1 or more. Received: {sites}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1. Received: {momentum}.")
        if fixed is not None and not (len(fixed) == 2 and fixed[0] <= 0 <= fixed[1] and fixed[0] < fixed[1]):
            raise ValueError(f"fixed must be a range (smallest, largest) with zero in it. Received: {fixed}.")
        self.sites, self.momentum, self.rounds = sites, momentum, rounds
        self.fixed: Range | None = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Make the smallest and largest value of each site; both are 0 where nothing was seen."""
        if self.fixed is None:
            # Replicas see different batches: what they note is averaged.
            options: dict[str, Any] = {"shape": (self.sites,), "initializer": "zeros", "trainable": False}
            options |= {"dtype": "float32", "autocast": False, "aggregation": "mean"}
            self.smallest = self.add_weight(name="smallest", **options)
            self.largest = self.add_weight(name="largest", **options)

    def call(
        self,
        inputs: Any,
        site: int = 0,
        pooled: bool = False,
        unit: Any = None,
        least: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Round `inputs`, and in training let the range of `site` follow them.

        Args:
            inputs: A float tensor.
            site: Which of the tensors that share the range it is.
            pooled: Whether it is an average of numbers that were rounded already, of which many are halves: LiteRT
                rounds these away from the number that it stores as 0, at inference.
            unit: What `QuantizeWeights` tells of its output, the whole numbers' unit per channel: with it the numbers
                are rounded to the last bit as LiteRT does, at inference; in training, steps are no finer than that.
            least: A step, a scalar: in training, those of the range are no finer than a 16th of it.
            training: Whether the model trains.

        Returns:
            The rounded tensor, and the step between its levels; the tensor itself and 0 if it is not rounded.
        """
        if self.fixed is not None:
            low, high = (ops.convert_to_tensor(limit, "float32") for limit in self.fixed)
        elif training:
            low, high = self._observe(ops.stop_gradient(inputs), site, _least_step(unit, least))
        else:
            low, high = ops.min(self.smallest), ops.max(self.largest)
        if not self.rounds:
            return inputs, ops.zeros(())
        step = divided(ops.cast(high, "float64") - ops.cast(low, "float64"), 255)  # as the converter does
        if training:
            rounded_inputs = keras.quantizers.fake_quant_with_min_max_vars(inputs, low, high)
            return straight_through(rounded_inputs, inputs), step

        def rounded() -> Any:
            return as_stored(inputs, low, step, pooled, unit)

        return (rounded() if self.fixed is not None else ops.cond(high > low, rounded, lambda: inputs)), step

    def _observe(self, inputs: Any, site: int, least_step: Callable[[Any], Any]) -> tuple[Any, Any]:
        smallest, largest = ops.convert_to_tensor(self.smallest), ops.convert_to_tensor(self.largest)
        # Zero padding, and a zero after a ReLU, must be exact: the range holds zero.
        low = ops.minimum(ops.cast(ops.min(inputs), "float32"), 0.0)
        high = ops.maximum(ops.cast(ops.max(inputs), "float32"), 0.0)
        # Its width is one that runtimes compute with, even if all numbers are zero.
        high = ops.maximum(high, low + ops.maximum(255 * least_step((high - low) / 255), _LEAST_WIDTH))
        # What is not a number goes on, into the loss; a range that took it up would never be rid of it.
        here = ops.logical_and(ops.arange(self.sites) == site, ops.isfinite(high - low))
        new = ops.logical_not(largest > smallest)
        smallest = ops.where(here, ops.where(new, low, low + self.momentum * (smallest - low)), smallest)
        largest = ops.where(here, ops.where(new, high, high + self.momentum * (largest - high)), largest)
        self.smallest.assign(smallest)
        self.largest.assign(largest)
        return ops.min(smallest), ops.max(largest)

    @property
    def range(self) -> Range | None:
        """The range (smallest, largest), or `None` where nothing was seen."""
        if self.fixed is not None or not self.built:
            return self.fixed
        low = float(ops.convert_to_numpy(self.smallest).min())
        high = float(ops.convert_to_numpy(self.largest).max())
        return (low, high) if high > low else None

    def compute_output_spec(
        self,
        inputs: Any,
        site: int = 0,
        pooled: bool = False,
        unit: Any = None,
        least: Any = None,
        training: bool | None = None,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the shapes and dtypes of the rounded input and of the step."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype), keras.KerasTensor((), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"sites": self.sites, "momentum": self.momentum, "fixed": self.fixed, "rounds": self.rounds}
        return {**super().get_config(), **own}


def _least_step(unit: Any, least: Any) -> Callable[[Any], Any]:
    """The finest step that makes sense, as a function of the one that would follow from what was seen.

    Sums of whole numbers say nothing below their unit, and runtimes refuse a step that is a 256th of it, which follows
    where what was seen is zero, or nearly constant. A channel of large weights alone is no reason for coarse steps.
    """
    if least is not None:
        return lambda step: ops.cast(least, "float32") / 16
    if unit is None:
        return lambda step: 0.0
    units = ops.cast(unit, "float32")
    finest = ops.min(ops.where(units > 0, units, float("inf")))
    return lambda step: ops.where(step < finest, ops.max(units) / 16, 0.0)


@keras.saving.register_keras_serializable(package="tfprune")
class QuantizeWeights(keras.layers.Wrapper):
    """Computes with the int8 weights that a layer will have, while its float weights train.

    Each kernel is rounded to whole numbers from -127 to 127 times a scale, one scale per output channel or one for
    the whole kernel, so that the largest weight is kept; the gradient passes the rounding unchanged. With
    `keep_zeros`, a weight that is zero stays exactly zero in training: it gets no gradient.

    At inference, given the step between the levels of its input, it also rounds the bias as the int8 operator does, to
    whole numbers of that step times the scale of the weights.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, https://arxiv.org/abs/1712.05877

    Args:
        layer: The layer.
        channel_axes: For each kernel, by the name of its attribute, the axes along which every position has a scale
            of its own; none for one scale. Empty for a layer that scales and shifts each channel.
        keep_zeros: Whether weights that are zero stay so.
        normalization: A BatchNormalization that works on the layer's output, as part of the same operator.
        maker: A layer that makes the kernel to be rounded of the one that trains; `None` for that itself.
        one_scale: Whether the scales of all channels are the same: weights that are equal then stay equal.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> inner = keras.layers.Dense(1, use_bias=False, kernel_initializer=lambda shape, dtype: [[1.27], [0.504]])
    >>> layer = QuantizeWeights(inner, {"kernel": ()})
    >>> outputs, unit = layer(keras.ops.eye(2))
    >>> [round(float(value), 3) for value in outputs[:, 0]]
    [1.27, 0.5]
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        channel_axes: Mapping[str, Sequence[int]],
        keep_zeros: bool = False,
        normalization: keras.layers.BatchNormalization | None = None,
        maker: keras.layers.Layer | None = None,
        one_scale: bool = False,
        **kwargs: Any,
    ) -> None:
        # Only the layer itself casts for mixed precision: a kernel in half precision would round to other levels.
        super().__init__(layer, autocast=False, **{**kwargs, "dtype": "float32"})
        self.channel_axes = {name: tuple(axes) for name, axes in channel_axes.items()}
        self.keep_zeros = keep_zeros
        self.normalization, self.maker, self.one_scale = normalization, maker, one_scale
        self.supports_masking = True

    def build(self, inputs_shape: Any, step_shape: Any = None) -> None:
        """Build the layers."""
        if not self.layer.built:
            self.layer.build(inputs_shape)
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build(self.compute_output_shape(inputs_shape))
        self.built = True

    def call(self, inputs: Any, step: Any = None, training: bool | None = None) -> Any:
        """Call the layer with rounded kernels.

        Args:
            inputs: A float tensor.
            step: That between the levels of `inputs`, if they are rounded.
            training: Whether the model trains.

        Returns:
            The outputs; and per channel, or for all, the unit of which they are whole numbers, 0 if they are not.
        """
        regularizer = self.layer.activity_regularizer
        exact = step is not None and not training and self.compute_dtype == self.layer.compute_dtype
        if exact and (regularizer is None or self.normalization is None):
            outputs, unit = self._in_whole_numbers(ops.cast(inputs, self.compute_dtype), step)
            if regularizer is not None:
                self.add_loss(regularizer(outputs) / ops.cast(ops.shape(outputs)[0], "float32"))  # as Keras does
            return outputs, unit
        outputs = self._with_rounded_kernels(inputs) if self.channel_axes else _called(self.layer, inputs, training)
        if self.normalization is not None:
            outputs = self.normalization(outputs, training=training)
        known = training and step is not None
        return outputs, self._unit(step) if known else ops.zeros(self._unit_shape())

    def _unit(self, step: Any) -> Any:
        """The units that the operator will sum in, no gradient: the converter makes them as large as biases need."""
        factor, shift = (1.0, 0.0) if self.normalization is None else scale_and_shift(self.normalization)
        if self.channel_axes:
            ((name, axes),) = self.channel_axes.items()
            _, largest = weight_levels(self.trained(name), axes, self.one_scale)
            scale = ops.reshape(largest, (-1,) if axes else ()) * ops.abs(factor)
            bias = (ops.convert_to_tensor(self.layer.bias) if self.layer.use_bias else 0.0) * factor + shift
            bias = ops.abs(bias) if axes else ops.max(ops.abs(bias))
        else:
            scale, bias = (ops.abs(part) for part in scale_and_shift(self.layer))
        unit = ops.where(scale > 0, ops.maximum(step * scale / 127, bias / _LARGEST_BIAS), 0.0)
        return ops.stop_gradient(ops.broadcast_to(unit, self._unit_shape()))

    def _with_rounded_kernels(self, inputs: Any) -> Any:
        with self._holding({name: self.quantized(name) for name in self.channel_axes}) as scope:
            outputs = self.layer(inputs)
        for loss in scope.losses:  # the scope keeps them from the layer
            self.add_loss(loss)
        return outputs

    def _holding(self, values: Mapping[str, Any]) -> keras.StatelessScope:
        """A scope in which some variables of the layer, by the names of the attributes, have other values."""
        positions = {id(variable): position for position, variable in enumerate(self.layer.variables)}
        return holding(self.layer, {positions[id(getattr(self.layer, name))]: value for name, value in values.items()})

    def _in_whole_numbers(self, inputs: Any, step: Any) -> tuple[Any, Any]:
        """Compute as the int8 operator does: with whole numbers, which float32 holds exactly.

        `inputs / step` are the whole numbers of the input, `levels` those of the kernel; the bias is rounded to whole
        numbers of `unit = step * scale`, and the sum is given back as a real number, `whole * unit`.
        `QuantizeActivation` finds `whole` again by dividing, which is why the unit comes out beside the outputs:
        rounded once from there, as the operator does, and not from numbers that were rounded as reals before.

        A BatchNormalization in the operator multiplies the scale, which is positive: the sign of its factor goes into
        the sums. A layer that only scales and shifts is a kernel of one weight per channel, whose level is 127 or -127.
        """
        known = step > 0  # else no data was seen
        step = ops.where(known, step, ops.ones_like(step))
        inputs = ops.where(known, straight_through(ops.round(inputs / step), inputs / step), inputs)
        factor, shift = (1.0, 0.0) if self.normalization is None else scale_and_shift(self.normalization)
        if self.channel_axes:
            ((name, axes),) = self.channel_axes.items()
            levels, largest = weight_levels(self.trained(name), axes, self.one_scale)
            values = {name: levels, **({"bias": ops.zeros_like(self.layer.bias)} if self.layer.use_bias else {})}
            with self._holding(values):
                sums = self.layer.call(inputs) * ops.sign(factor)
            largest = ops.stop_gradient(ops.reshape(largest, (-1,) if axes else ()))
            bias = (ops.convert_to_tensor(self.layer.bias) if self.layer.use_bias else 0.0) * factor + shift
            scale = divided(largest * ops.abs(factor), 127)
        else:
            factor, bias = scale_and_shift(self.layer)
            sums, scale = inputs * (127.0 * ops.sign(factor)), divided(ops.abs(factor), 127)
        unit = step * scale
        safe = ops.where(unit > 0, unit, ops.ones_like(unit))  # a dead channel is its bias
        shifts = bias / safe
        whole = straight_through(ops.sign(shifts) * ops.floor(ops.abs(shifts) + 0.5), shifts)
        sums = sums + ops.where(known, whole, shifts)
        return ops.where(unit > 0, sums * unit, bias), ops.where(known, unit, ops.zeros_like(unit))

    def _unit_shape(self) -> tuple[int, ...]:
        """One unit per channel, or one for all."""
        if self.channel_axes:
            ((name, axes),) = self.channel_axes.items()
            shape = getattr(self.layer, name).shape
            return (math.prod(shape[axis] for axis in axes),) if axes else ()
        return tuple(scale_and_shift(self.layer)[0].shape)

    def trained(self, name: str) -> Any:
        """Return the weights that are rounded.

        Args:
            name: The attribute of a kernel.

        Returns:
            A tensor of the kernel's shape, float32.
        """
        weights = ops.cast(ops.convert_to_tensor(getattr(self.layer, name)), "float32")
        return weights if self.maker is None else self.maker(weights)

    def quantized(self, name: str) -> Any:
        """Return a kernel as the numbers that int8 can hold.

        Args:
            name: Its attribute.

        Returns:
            A tensor of the kernel's shape, float32.
        """
        weights = self.trained(name)
        rounded = fake_quantize_weights(weights, self.channel_axes[name], self.one_scale)
        return ops.where(weights != 0, rounded, ops.zeros_like(rounded)) if self.keep_zeros else rounded

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the layer's output."""
        # A layer that scales and shifts keeps the shape; LayerScale of keras.applications does not say so.
        return self.layer.compute_output_shape(input_shape) if self.channel_axes else input_shape

    def compute_output_spec(
        self, inputs: Any, step: Any = None, training: bool | None = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the shapes and dtypes of the layer's output and of its units."""
        outputs = keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.layer.compute_dtype)
        return outputs, keras.KerasTensor(self._unit_shape(), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        axes = {name: list(axes) for name, axes in self.channel_axes.items()}
        inside = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _INSIDE}
        own = {"channel_axes": axes, "keep_zeros": self.keep_zeros, "one_scale": self.one_scale}
        return {**super().get_config(), **own, **inside}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "QuantizeWeights":
        """Make the layer from `get_config`."""
        # Files that an older version wrote know only one of them.
        inside = {name: keras.saving.deserialize_keras_object(config.get(name), custom_objects) for name in _INSIDE}
        made: QuantizeWeights = super().from_config({**config, **inside}, custom_objects)
        return made


def _called(layer: Any, inputs: Any, training: bool | None) -> Any:
    known = isinstance(layer, keras.layers.BatchNormalization)
    return layer(inputs, training=training) if known else layer(inputs)


def scale_and_shift(layer: Any) -> tuple[Any, Any]:
    """Return what a layer that works on each channel by itself multiplies with at inference, and what it adds.

    Args:
        layer: A built `BatchNormalization`, `Normalization`, `Rescaling` or `LayerScale`.

    Returns:
        Two tensors of shape `(channels,)`, or of shape `()` if all channels share the number.

    Example:

    >>> [float(value) for value in scale_and_shift(keras.layers.Rescaling(0.5, offset=1.0))]
    [0.5, 1.0]
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        scale = ops.rsqrt(layer.moving_variance + layer.epsilon)
        scale = scale * layer.gamma if layer.scale else scale
        shift = -layer.moving_mean * scale
        return scale, shift + layer.beta if layer.center else shift
    if isinstance(layer, keras.layers.Normalization):
        scale = 1.0 / ops.maximum(ops.sqrt(layer.variance), keras.config.epsilon())
        parts = (1.0 / scale, layer.mean) if layer.invert else (scale, -layer.mean * scale)
    elif isinstance(layer, keras.layers.Rescaling):
        parts = (layer.scale, layer.offset)
    else:
        parts = (layer.gamma, 0.0)
    first, second = (ops.squeeze(ops.convert_to_tensor(part, "float32")) for part in parts)
    return first, second


@keras.saving.register_keras_serializable(package="tfprune")
class KeepFloat(keras.layers.Wrapper):
    """Marks a layer that `tfprune.export` leaves in float.

    Args:
        layer: The layer.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> float(KeepFloat(keras.layers.ReLU())(keras.ops.array([0.3]))[0]) == float(keras.ops.array(0.3))
    True
    """

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        return self.layer(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Leave it to the layer, which may read several tensors."""
        self.built = True

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer returns."""
        if not self.layer.built:
            self.layer(*args, **kwargs)
        return self.layer.compute_output_spec(*args, **kwargs)


@cost(QuantizeWeights, KeepFloat)
def _inner_cost(node: Node, sizes: Sizes) -> Any:
    return multiply_accumulates(dataclasses.replace(node, operation=node.operation.layer), sizes)


@rule(QuantizeActivation, QuantizeWeights, KeepFloat)
def _stays(call: Call) -> list[Any]:
    return call.give_up("the model is quantize-aware: prune before tfprune.quantize_aware")
