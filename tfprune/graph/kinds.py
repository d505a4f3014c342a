"""One row for each kind of layer: its kernels and their axes, and what it multiplies and adds per channel.

Whatever asks "which axis?" or "which attribute?" of a layer asks here: weight pruning (`tfprune.parts.kernels`), the
rules that follow channels, zeros and factors, costs, and int8. What a kind of layer *does* stays with whoever does it.

There are two ways to ask. `find_kind` takes a subclass for its parent: its variables are where the parent's are.
`exact_kind` does not: a subclass may compute something else with them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

layers = keras.layers


@dataclass(frozen=True)
class KernelAxes:
    """One kernel of a kind of layer. Axes are negative: -1 is the last.

    Attributes:
        attribute: Where the layer holds it: `"kernel"`, or `"cell.kernel"` for what something inside it holds.
        input_axes: The axes along which inputs are summed. Where nothing is summed it is one of `output_axes`: the
            channels of a depthwise kernel, the last axis of an embedding.
        output_axes: The axes along which the channels that it makes lie, as if they were flattened in this order.
        depthwise: Whether it is a depthwise kernel, which has few weights for what they do.
        gates: How many blocks, one after another on the output axis, hold a slice of every channel.
        scale_axes: The axes along which each position has a scale of its own in LiteRT's int8 operator; none for one
            scale. `None` where there is no such operator.
        applied_at: Whether each weight is multiplied once for every position of the `"outputs"` or of the `"inputs"`;
            `None` where that does not say what a call costs.

    Example:

    >>> KernelAxes("kernel", (-2,), (-1,)).of(keras.layers.Dense(2)) is None  # not built
    True
    """

    attribute: str
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    depthwise: bool = False
    gates: int = 1
    scale_axes: tuple[int, ...] | None = None
    applied_at: Literal["outputs", "inputs"] | None = None

    @property
    def input_axis(self) -> int:
        """The axis along which inputs are summed; of several, the last one."""
        return self.input_axes[-1]

    @property
    def output_axis(self) -> int:
        """The one axis along which the channels that it makes lie; not for depthwise kernels."""
        (axis,) = self.output_axes
        return axis

    def of(self, layer: Any) -> Any:
        """Return the kernel of a layer; `None` if it has none, or is not built."""
        return _held(layer, self.attribute)

    def along_outputs(self, kernel: Any, values: np.ndarray) -> np.ndarray:
        """Lay values, one for each channel that the kernel makes, along its output axes; one for all stays as it is."""
        rank = len(kernel.shape)
        sizes = [size if axis - rank in self.output_axes else 1 for axis, size in enumerate(kernel.shape)]
        return values.reshape(sizes) if values.ndim else values

    def positions(self, rank: int) -> tuple[int, ...]:
        """Return the axes, counted from 0, along which neither inputs nor outputs lie: those of a window."""
        return tuple(axis for axis in range(rank) if axis - rank not in (*self.input_axes, *self.output_axes))


@dataclass(frozen=True)
class LayerKind:
    """What is true of every layer of a kind. An empty one says that nothing is known.

    Attributes:
        kernels: Its kernels, in the order in which they act.
        scale: The attribute of what multiplies each channel, such as `"gamma"`.
        shift: The attribute of what is added to each channel, such as `"bias"` or `"beta"`.
        statistics: The attributes of other numbers per channel, which go with it: measured ones, slopes.
        activation: The attribute of the activation that comes last.
        factors: Where a factor of the output can go, for the tensor or per channel on the last axis. `"weights"`: into
            the last kernel or the scale, and the shift; the output is then also zero if they are. `"input"`: the layer
            commutes with it. `"input_if_positive"`: only with one of at least 0, as a maximum does.
        hides: For layers that the user knows as one though others are inside, as in attention: how many of those that
            lead to a kernel are left out of its name.

    Example:

    >>> find_kind(keras.layers.Conv2DTranspose(4, 3)).kernels[0].output_axes
    (-2,)
    """

    kernels: tuple[KernelAxes, ...] = ()
    scale: str | None = None
    shift: str | None = None
    statistics: tuple[str, ...] = ()
    activation: str | None = None
    factors: Literal["weights", "input", "input_if_positive"] | None = None
    hides: int | None = None

    def scale_of(self, layer: Any) -> Any:
        """Return the variable that multiplies each channel of a layer, or `None`."""
        return None if self.scale is None else _held(layer, self.scale)

    def shift_of(self, layer: Any) -> Any:
        """Return the variable that is added to each channel of a layer, or `None`."""
        return None if self.shift is None else _held(layer, self.shift)

    def activation_of(self, layer: Any) -> Any:
        """Return the activation of a layer, `keras.activations.linear` if it has none."""
        return keras.activations.linear if self.activation is None else _held(layer, self.activation)

    @property
    def scale_axes(self) -> dict[str, tuple[int, ...]] | None:
        """For each kernel (by its attribute) its scale axes, or `None` where LiteRT has no int8 operator for all."""
        found = {kernel.attribute: kernel.scale_axes for kernel in self.kernels}
        known = {name: axes for name, axes in found.items() if axes is not None}
        return known if known and len(known) == len(found) else None

    @property
    def is_separable(self) -> bool:
        """Whether it is a depthwise kernel, and another one behind it."""
        return [kernel.depthwise for kernel in self.kernels] == [True, False]


Row = LayerKind | Callable[[Any], LayerKind]
"""A kind, or a function from a layer to its kind where the layer's arguments decide."""

NOTHING_KNOWN = LayerKind()


def exact_kind(operation: keras.Operation) -> LayerKind:
    """Return what is known of the exact class of a layer; a subclass may compute something else.

    Args:
        operation: A layer or operation.

    Returns:
        The kind; an empty one where nothing is known.

    Example:

    >>> class Custom(keras.layers.Dense):
    ...     pass
    >>> exact_kind(Custom(2)) == LayerKind(), find_kind(Custom(2)) == find_kind(keras.layers.Dense(2))
    (True, True)
    """
    return _resolved(KINDS.get(type(operation), NOTHING_KNOWN), operation)


def find_kind(operation: keras.Operation) -> LayerKind:
    """Return what is known of a layer or of the nearest class that it is derived from.

    Args:
        operation: A layer or operation.

    Returns:
        The kind; an empty one where nothing is known.
    """
    rows = (KINDS[known] for known in type(operation).__mro__ if known in KINDS)
    return _resolved(next(rows, NOTHING_KNOWN), operation)


def register_kind(layer_class: type, kind: Row) -> None:
    """Say which kernels a layer of your own has, so that weights are pruned in it, and what it does per channel.

    It holds for subclasses too, where only the place of the variables counts. A second registration replaces the
    first. To follow its channels, give it a rule as well: `tfprune.graph.rule`.

    Args:
        layer_class: The class.
        kind: Its `LayerKind`, or a function from a layer to it where the layer's arguments decide.

    Raises:
        TypeError: If `layer_class` is no class of layers.
        ValueError: If `scale_axes` are given, which only operators of LiteRT have.

    Example:

    >>> class Projection(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.matrix = self.add_weight(shape=(shape[-1], 2), name="matrix")
    ...     def call(self, x):
    ...         return keras.ops.matmul(x, self.matrix)
    >>> register_kind(Projection, LayerKind((KernelAxes("matrix", (-2,), (-1,), applied_at="outputs"),)))
    >>> from tfprune.parts.kernels import kernels
    >>> [kernel.name for kernel in kernels(keras.Sequential([keras.Input((3,)), Projection(name="mine")]))]
    ['mine']
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(f"layer_class must be a class of layers, such as MyLayer. Received: {layer_class!r}.")
    if isinstance(kind, LayerKind) and any(kernel.scale_axes is not None for kernel in kind.kernels):
        raise ValueError(
            f"scale_axes say how an int8 operator of LiteRT stores a kernel, and it has none for "
            f"{layer_class.__name__}. Leave them out: the layer stays in float."
        )
    KINDS[layer_class] = kind


def kernel_axes(layer: keras.layers.Layer, variable: keras.Variable) -> KernelAxes | None:
    """Return the axes of one kernel of a layer, or `None` if the variable is no kernel of it.

    Args:
        layer: A built layer.
        variable: A variable.
    """
    return next((kernel for kernel in find_kind(layer).kernels if kernel.of(layer) is variable), None)


def is_changed(layer: keras.layers.Layer) -> bool:
    """Return whether a layer computes something else than its kernel says: it is quantized, or has LoRA weights.

    Args:
        layer: A layer with a kernel.
    """
    return bool(getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False))


def _held(layer: Any, path: str) -> Any:
    return functools.reduce(lambda owner, name: getattr(owner, name, None), path.split("."), layer)


def _resolved(row: Row, operation: keras.Operation) -> LayerKind:
    return row if isinstance(row, LayerKind) else row(operation)


def _product(*kernels: KernelAxes) -> LayerKind:
    return LayerKind(kernels, shift="bias", activation="activation", factors="weights")


def _convolution(*, int8: bool) -> LayerKind:
    return _product(KernelAxes("kernel", (-2,), (-1,), scale_axes=(-1,) if int8 else None, applied_at="outputs"))


def _transposed(*, int8: bool) -> LayerKind:
    return _product(KernelAxes("kernel", (-1,), (-2,), scale_axes=(-2,) if int8 else None, applied_at="inputs"))


def _depthwise() -> LayerKind:
    return _product(KernelAxes("kernel", (-2,), (-2, -1), depthwise=True, scale_axes=(-2, -1), applied_at="outputs"))


def _separable() -> LayerKind:
    return _product(
        KernelAxes("depthwise_kernel", (-2,), (-2, -1), depthwise=True, applied_at="outputs"),
        KernelAxes("pointwise_kernel", (-2,), (-1,), applied_at="outputs"),
    )


def _dense() -> LayerKind:
    # One scale for all of it: runtimes that many devices have know no other.
    return _product(KernelAxes("kernel", (-2,), (-1,), scale_axes=(), applied_at="outputs"))


def _cell(gates: int, inside: str = "", hides: int | None = None) -> LayerKind:
    kernels = (KernelAxes(f"{inside}{name}", (-2,), (-1,), gates=gates) for name in ("kernel", "recurrent_kernel"))
    return LayerKind(tuple(kernels), shift=f"{inside}bias", activation=f"{inside}activation", hides=hides)


def _normalization(*statistics: str) -> LayerKind:
    return LayerKind(scale="gamma", shift="beta", statistics=statistics, factors="weights")


def _einsum(layer: Any) -> LayerKind:
    """The kernel of an `EinsumDense`; the bias and the output may have any axes."""
    operands, output = layer.equation.replace(" ", "").split("->")
    letters = operands.split(",")[1]
    axes = {letter: axis - len(letters) for axis, letter in enumerate(letters)}
    made = tuple(axis for letter, axis in axes.items() if letter in output)
    summed = tuple(axis for letter, axis in axes.items() if letter not in output)
    return LayerKind((KernelAxes("kernel", summed or (-1,), made),), shift="bias", activation="activation")


KINDS: dict[type, Row] = {
    **dict.fromkeys((layers.Conv1D, layers.Conv2D), _convolution(int8=True)),
    layers.Conv3D: _convolution(int8=False),
    **dict.fromkeys((layers.Conv1DTranspose, layers.Conv2DTranspose), _transposed(int8=True)),
    layers.Conv3DTranspose: _transposed(int8=False),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise()),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), _separable()),
    layers.Dense: _dense(),
    layers.EinsumDense: _einsum,
    layers.Embedding: LayerKind((KernelAxes("embeddings", (-1,), (-1,)),)),
    layers.SimpleRNNCell: _cell(1),
    layers.GRUCell: _cell(3),
    layers.LSTMCell: _cell(4),
    # Their cells count by themselves, as in an RNN with any cell; those of ConvLSTM have no public class.
    **dict.fromkeys((layers.RNN, layers.SimpleRNN, layers.GRU, layers.LSTM), LayerKind(hides=1)),
    **dict.fromkeys((layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D), _cell(4, inside="cell.", hides=1)),
    # Their projections are EinsumDense layers; what heads do to channels is in tfprune.graph.rules.attention.
    **dict.fromkeys((layers.MultiHeadAttention, layers.GroupQueryAttention), LayerKind(hides=0)),
    layers.BatchNormalization: _normalization(
        *("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")
    ),
    **dict.fromkeys((layers.LayerNormalization, layers.GroupNormalization), _normalization()),
    layers.RMSNormalization: LayerKind(scale="scale", factors="weights"),
    layers.PReLU: LayerKind(statistics=("alpha",)),
    **dict.fromkeys(
        (
            *(layers.Identity, layers.Dropout),
            *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
            *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
            *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
            *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
            *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
        ),
        LayerKind(factors="input"),
    ),
    **dict.fromkeys(
        (
            *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
            *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
        ),
        LayerKind(factors="input_if_positive"),
    ),
}
if hasattr(layers, "ReversibleEmbedding"):  # since Keras 3.13
    KINDS[layers.ReversibleEmbedding] = LayerKind(
        (KernelAxes("embeddings", (-1,), (-1,)), KernelAxes("reverse_embeddings", (-2,), (-1,)))
    )
