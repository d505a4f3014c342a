"""Layers in the form that LiteRT has an operator for, where TensorFlow's converter would write something else."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfprune.quantization.stable_activations import stable_activation
from tfprune.rewriting.computed_kernels import ComputedKernels
from tfprune.rewriting.copies import Copies

layers = keras.layers
Step = Callable[[Any, Callable[[Any], Any]], Any]


def operator_form(operation: Any) -> keras.layers.Layer | None:
    """Return a layer without weights that computes the same by operators that every LiteRT runtime has.

    Args:
        operation: A layer or operation.

    Returns:
        The layer, or `None` where the converter needs no help.

    Example:

    >>> type(operator_form(keras.layers.UpSampling2D(2))).__name__
    'Nearest'
    """
    activation = stable_activation(operation)
    if activation is not None and (isinstance(operation, layers.Activation) or not isinstance(operation, layers.Layer)):
        return layers.Activation(activation, name=operation.name)
    if isinstance(operation, layers.UpSampling2D):
        plain = operation.interpolation == "nearest" and operation.data_format == "channels_last"
        return Nearest(operation.size, name=operation.name) if plain else None
    if isinstance(operation, layers.UpSampling1D):
        return Nearest((operation.size, 1), name=operation.name)
    if isinstance(operation, layers.RepeatVector):
        return Nearest((operation.n, 1), name=operation.name)
    # Operations of keras.ops are told apart by name: their classes are not public.
    name = type(operation).__name__
    if name in ("Argmax", "Argmin") and type(operation).__module__.startswith("keras."):
        return Extreme(name == "Argmax", operation.axis, operation.keepdims, name=operation.name)
    return None


class Nearest(keras.layers.Layer):
    """Repeats positions, as an image that is resized: by calibration the converter writes TILE, which few have in int8.

    Args:
        size: How often rows and columns are repeated; a sequence is a column of rows, and a vector is one row.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = tuple(size)

    def call(self, inputs: Any) -> Any:
        """Return the larger image, sequence or sequence of one vector."""
        rows, columns, channels = self._image(inputs.shape)
        images = ops.reshape(inputs, (-1, rows, columns, channels))
        sizes = rows * self.size[0], columns * self.size[1]
        resized = ops.image.resize(images, sizes, interpolation="nearest", data_format="channels_last")
        return ops.reshape(resized, (-1, *self.compute_output_shape(inputs.shape)[1:]))

    def _image(self, shape: Any) -> tuple[int, int, int]:
        *sizes, channels = shape[1:]
        rows, columns = (*sizes, 1, 1)[:2]
        return rows, columns, channels

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the result."""
        rows, columns, channels = self._image(input_shape)
        larger = rows * self.size[0], columns * self.size[1]
        return (input_shape[0], *larger[: max(len(input_shape) - 2, 1)], channels)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "size": self.size}


class Extreme(keras.layers.Layer):
    """Where the largest or smallest numbers are, whatever the sign of zero, for which Keras looks at single bits.

    Args:
        largest: Whether it is the largest.
        axis: Along which axis; `None` for all numbers.
        keepdims: Whether the axis stays.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, largest: bool, axis: int | None, keepdims: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.largest, self.axis, self.keepdims = largest, axis, keepdims

    def call(self, inputs: Any) -> Any:
        """Return the positions, int32."""
        find = tf.argmax if self.largest else tf.argmin
        flat = ops.reshape(inputs, (-1,)) if self.axis is None else inputs
        found = find(flat, self.axis or 0, output_type=tf.int32)
        if not self.keepdims:
            return found
        return ops.reshape(found, (1,) * len(inputs.shape)) if self.axis is None else ops.expand_dims(found, self.axis)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return the shape and dtype of the positions."""
        spec: keras.KerasTensor = ops.argmax(inputs, self.axis, self.keepdims)
        return keras.KerasTensor(spec.shape, dtype="int32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "largest": self.largest, "axis": self.axis, "keepdims": self.keepdims}


def kernel_form(layer: Any, weights: list[np.ndarray], copies: Copies, largest: np.ndarray | None = None) -> Step:
    """Return a layer with a kernel in the form that the converter makes one int8 operator of.

    A convolution over a sequence is one over an image of one row: left to itself, the converter puts the bias of one
    channel behind the reshape that is behind the convolution, and both stay in float. A transposed convolution has a
    bias in any case: without one, a ReLU behind it is an operator of its own, and both stay in float. It is not found
    behind a reshape either.

    Args:
        layer: A convolution or `Dense` without activation.
        weights: Its kernel, and its bias if it has one.
        copies: Where copies are made.
        largest: The weight that is stored as 127, of each position on the last axis or of all; `None` for the largest
            that there is.

    Returns:
        What to call on a tensor, and on the activation that is part of the operator if there is one.
    """
    kernel, *biases = weights
    if "Transpose" in type(layer).__name__:
        biases = [_kept_apart(biases[0] if biases else np.zeros(layer.filters, np.float32))]
    else:
        biases = [not_uniform(bias) for bias in biases]
    if getattr(layer, "rank", None) == 1:
        return _over_image(layer, [kernel[np.newaxis], *biases], copies, largest)
    made = _with_scales(copies.new(layer, [kernel, *biases], use_bias=bool(biases)), largest)
    return lambda tensor, activation: activation(made(tensor))


@keras.saving.register_keras_serializable(package="tfprune")
class _Scaled(keras.layers.Layer):
    """Rounds a kernel over ranges that the converter takes over as its scales."""

    def __init__(self, largest: Any, **kwargs: Any) -> None:
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.largest = np.asarray(largest, np.float32)

    def call(self, inputs: Any) -> Any:
        function = "fake_quant_with_min_max_vars" + ("_per_channel" if self.largest.ndim else "")
        return getattr(tf.quantization, function)(inputs, -self.largest, self.largest, 8, narrow_range=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "largest": self.largest.tolist()}


def _with_scales(layer: Any, largest: np.ndarray | None) -> Any:
    if largest is None:
        return layer
    return ComputedKernels(layer, [0], [_Scaled(largest)], name=layer.name, dtype=layer.dtype_policy)


def _over_image(layer: Any, weights: list[np.ndarray], copies: Copies, largest: np.ndarray | None) -> Step:
    name, config = type(layer).__name__, layer.get_config()
    (size,), (stride,), (dilation,) = config["kernel_size"], config["strides"], config["dilation_rate"]
    padding = dilation * (size - 1) if config["padding"] == "causal" else 0
    config |= {"kernel_size": (1, size), "dilation_rate": (1, dilation), "use_bias": len(weights) > 1}
    # A depthwise convolution takes equal strides only; one row stays one.
    config["strides"] = (stride if "Depthwise" in name else 1, stride)
    config["padding"] = "valid" if padding else config["padding"]
    if config.get("output_padding") is not None:
        config["output_padding"] = (0, *config["output_padding"])
    convolution = _with_scales(
        copies.new(getattr(layers, name.replace("1D", "2D")).from_config(config), weights), largest
    )

    def call(tensor: keras.KerasTensor, activation: Callable[[Any], Any]) -> keras.KerasTensor:
        image = reshaped(tensor, (1, *tensor.shape[1:]), copies)
        if padding:
            image = layers.ZeroPadding2D(((0, 0), (padding, 0)), name=copies.unused(f"{layer.name}_padding"))(image)
        outputs = activation(convolution(image))
        return reshaped(outputs, outputs.shape[2:], copies)

    return call


def reshaped(tensor: keras.KerasTensor, shape: Sequence[Any], copies: Copies) -> keras.KerasTensor:
    """Return a tensor in another shape, batch aside."""
    if tuple(tensor.shape[1:]) == tuple(shape):
        return tensor
    # A name that Keras gives may be in the model already, if that was loaded from a file.
    return layers.Reshape(tuple(shape), name=copies.unused("reshape"))(tensor)


def not_uniform(bias: np.ndarray) -> np.ndarray:
    """Return a bias, if it is of equal numbers with one of them changed by the last bit.

    The converter (TensorFlow 2.21) stores a bias of equal numbers once and rounds it by the first channel's scale.
    """
    bias = bias.copy()
    if len(bias) > 1 and bias[0] and (bias == bias[0]).all():
        bias[0] = np.nextafter(bias[0], np.float32(0))
    return bias


def _kept_apart(bias: np.ndarray) -> np.ndarray:
    """A bias that the converter does not drop: of zeros, with a number that every scale rounds to zero."""
    bias = not_uniform(bias)
    if not bias.any():
        bias[0] = 1e-30
    return bias
