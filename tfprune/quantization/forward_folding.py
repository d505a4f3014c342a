"""BatchNormalization put into the layers that read it, where the one before it cannot take it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph import Node, functional, is_graph, walk
from tfprune.graph.kinds import exact_kind, is_changed
from tfprune.graph.wiring import Wiring
from tfprune.quantization.normalization import per_channel
from tfprune.rewriting.edits import Edit
from tfprune.rewriting.engine import Rewriter

layers = keras.layers


_COARSER = 4.0
"""How much more noise the rounding of a kernel may make when it takes a normalization in: twice its amplitude."""


def fold_normalizations(model: keras.Model, rounds: bool = False, reuse: bool = False) -> keras.Model:
    """Return a model that computes the same at inference, with as few separate BatchNormalizations as is exact.

    A normalization behind a convolution or `Dense` without activation becomes part of that layer in a file, and stays
    here. One behind an activation, a pooling or an input would be a product and a sum of its own. It goes into the
    kernel and bias of the layers that read it if all of them can take it: `Dense`, and convolutions that see no
    padding. Where zeros are padded, what it adds would be missing at the border, so it stays. Poolings (a maximum only
    at positive scales), `Flatten`, `Dropout`, `Concatenate` and others between them are passed.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, section 3.2, which folds into the layer before.

    Args:
        model: A built Sequential, functional or subclassed Keras model; not changed, unless its layers are reused.
        rounds: Whether kernels will be rounded to few levels. A normalization then stays where its scales differ so
            much that they would leave the others' weights hardly any levels, as that of a dead channel does.
        reuse: Whether layers that stay as they are go on in the new model, which is compiled like the model, because
            nobody needs that any more. Else all are copied, and the new model is for the converter alone.

    Returns:
        A changed model, or the model itself if there is nothing to fold.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.BatchNormalization(),
    ...     keras.layers.MaxPooling2D(), keras.layers.Conv2D(2, 3)])
    >>> [type(layer).__name__ for layer in fold_normalizations(model).layers]
    ['Conv2D', 'MaxPooling2D', 'Conv2D']
    """
    if not any(type(layer) is layers.BatchNormalization for layer in _all_layers(model)):
        return model
    plan = _Plan(
        Wiring.of(model, lambda node: functional(node.operation) if is_graph(node.operation) else None), rounds
    )
    return _Folder(plan, reuse).rewrite(model, trains=reuse) if plan.edits else model


def _all_layers(model: keras.Model) -> Iterator[Any]:
    for node in walk(functional(model)):
        yield from _all_layers(node.operation) if is_graph(node.operation) else [node.operation]


@dataclass(frozen=True, eq=False)
class _Affine:
    """What the channels on the last axis of a tensor lack: its readers should see `scale * tensor + shift`.

    Attributes:
        scale: One number per channel.
        shift: One number per channel.
        power: The mean square of the tensor, per channel.
        power_seen: The mean square of what readers should see.
    """

    scale: np.ndarray
    shift: np.ndarray
    power: np.ndarray
    power_seen: np.ndarray

    @classmethod
    def of(cls, layer: keras.layers.BatchNormalization, channels: int) -> "_Affine":
        """Return what a tensor lacks when it goes around a normalization, which knows the statistics of the tensor."""
        scale, shift = per_channel(layer, channels)
        mean, variance = _numbers(layer.moving_mean), _numbers(layer.moving_variance)
        return cls(scale, shift, mean**2 + variance, (scale * mean + shift) ** 2 + scale**2 * variance)

    @classmethod
    def none(cls, channels: int) -> "_Affine":
        """Return that of a tensor that lacks nothing, and is taken to have a power of 1."""
        return cls(*(np.full(channels, value) for value in (1.0, 0.0, 1.0, 1.0)))

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """All numbers."""
        return self.scale, self.shift, self.power, self.power_seen


class _Plan:
    """What becomes of every call, and which weights layers get.

        relu -> BatchNormalization (s, t) -> pooling -> convolution (K, b)
        relu ---------------------------- -> pooling -> convolution (sK, b + tK)

    Normalizations are taken from the last to the first, so that of two in a row the later one is gone, or stays, when
    the earlier one asks.

    Attributes:
        edits: For calls of normalizations that go, that they do.
        weights: For layers (by id), kernels and bias, in float64.
    """

    def __init__(self, wiring: Wiring, rounds: bool) -> None:
        self._wiring, self._rounds = wiring, rounds
        self.edits: dict[int, Edit] = {}
        self.weights: dict[int, list[np.ndarray]] = {}
        for node in reversed(wiring.nodes):
            if _is_plain(node, wiring) and not _has_layer_before(node, wiring):
                self._fold(node)

    def _fold(self, node: Node) -> None:
        readers = self._readers(node.outputs[0], _Affine.of(node.operation, node.outputs[0].shape[-1]))
        if readers is None:
            return
        folded = dict(self.weights)
        for layer, affine in readers:
            held = folded.get(id(layer)) or [_numbers(variable) for variable in layer.variables]
            folded[id(layer)] = _folded(layer, held, affine)
            if self._rounds and _noise(layer, folded[id(layer)], affine.power) > _COARSER * _noise(
                layer, held, affine.power_seen
            ):
                return
        self.edits[node.key], self.weights = Edit(inputs=(0,)), folded

    def _readers(self, tensor: keras.KerasTensor, affine: _Affine) -> list[tuple[Any, _Affine]] | None:
        """The layers with kernels that read a tensor, at any remove, and what each lacks; `None` if one cannot take it.

        A tensor without readers is none of these either: somebody wants it as it is.
        """
        found: list[tuple[Any, _Affine]] = []
        readers = {id(reader): reader for reader in self._wiring.readers.get(id(tensor), [])}.values()
        for reader in readers or [None]:
            taken = self._outside(tensor, affine) if reader is None else self._taken(reader, tensor, affine)
            if taken is None:
                return None
            found += taken
        return found

    def _taken(self, node: Node, tensor: keras.KerasTensor, affine: _Affine) -> list[tuple[Any, _Affine]] | None:
        layer = node.operation
        once = len(self._wiring.calls[id(layer)]) == 1
        if id(layer) in self._wiring.views:
            entrance = self._wiring.views[id(layer)].inputs[0]
            return self._readers(entrance, affine) if once and len(node.inputs) == 1 else None
        if node.key in self.edits:
            return self._readers(node.outputs[0], affine)
        if exact_kind(layer).kernels:
            return [(layer, affine)] if once and _can_take(node, affine) else None
        passed = _passed(node, tensor, affine)
        return None if passed is None else self._readers(node.outputs[0], passed)

    def _outside(self, tensor: keras.KerasTensor, affine: _Affine) -> list[tuple[Any, _Affine]] | None:
        """The readers of an output of a model inside the model, at all calls of it; `None` for one of the model."""
        outer = [
            node.outputs[index]
            for key, view in self._wiring.views.items()
            for index, output in enumerate(view.outputs)
            for node in self._wiring.calls[key]
            if output is tensor
        ]
        found = [self._readers(each, affine) for each in outer]
        return None if not found or None in found else [reader for readers in found for reader in readers or []]


class _Folder(Rewriter):
    def __init__(self, plan: _Plan, reuse: bool) -> None:
        super().__init__(edits=plan.edits)
        self._weights, self._reuse = plan.weights, reuse

    def opened(self, node: Node) -> keras.Model | None:
        return node.operation if is_graph(node.operation) else None

    def copy(self, layer: Any) -> Any:
        weights = self._weights.get(id(layer))
        if weights is None:
            return layer if self._reuse else super().copy(layer)
        use_bias = len(weights) > len(exact_kind(layer).kernels)
        return self.copies.once(("folded", id(layer)), lambda: self.copies.new(layer, weights, use_bias=use_bias))


def _is_plain(node: Node, wiring: Wiring) -> bool:
    """Whether a call is of a BatchNormalization that scales and shifts the last axis, and nothing else."""
    layer = node.operation
    if type(layer) is not layers.BatchNormalization or len(wiring.calls[id(layer)]) > 1:
        return False
    is_last = layer.axis in (-1, len(node.inputs[0].shape) - 1)
    return is_last and layer.activity_regularizer is None and not node.kwargs.get("training")


def _has_layer_before(node: Node, wiring: Wiring) -> bool:
    """Whether the converter puts a normalization into the weights before it."""
    tensor = node.inputs[0]
    maker, _ = wiring.makers.get(id(tensor), (None, 0))
    if maker is None or wiring.readers[id(tensor)] != [node]:
        return False
    kind = exact_kind(maker.operation)
    return bool(kind.kernels) and kind.activation_of(maker.operation) is keras.activations.linear


def _can_take(node: Node, affine: _Affine) -> bool:
    """Whether a layer with a kernel can take a scale and a shift of its input channels into its weights."""
    layer, kind = node.operation, exact_kind(node.operation)
    if kind.factors != "weights" or is_changed(layer) or _is_channels_first(layer) or _shares_values(layer):
        return False
    adds_everywhere = kind.kernels[0].applied_at == "outputs" and not _pads(layer, node.input_shapes[0])
    return adds_everywhere or not affine.shift.any()


def _shares_values(layer: Any) -> bool:
    """Whether the weights of a layer are few numbers again and again, which scales of their inputs would undo."""
    kernel = exact_kind(layer).kernels[0].of(layer).numpy()
    living = kernel[kernel != 0]
    return len(np.unique(living)) <= living.size // 2


def _pads(layer: Any, shape: Sequence[int | None]) -> bool:
    """Whether a convolution reads zeros beyond the borders of an input of this shape."""
    if getattr(layer, "padding", "valid") == "valid":
        return False
    dilation = np.broadcast_to(layer.dilation_rate, len(layer.kernel_size))
    strides = np.broadcast_to(layer.strides, len(layer.kernel_size))
    windows = zip(shape, layer.kernel_size, strides, dilation, strict=False)
    return any(_reads_beyond(size, rate * (kernel - 1) + 1, stride, layer) for size, kernel, stride, rate in windows)


def _reads_beyond(size: int | None, reach: int, stride: int, layer: Any) -> bool:
    if size is None or layer.padding == "causal":
        return reach > 1
    return -(-size // stride) * stride - stride + reach > size


def _passed(node: Node, tensor: keras.KerasTensor, affine: _Affine) -> _Affine | None:
    """What the output of a layer lacks if its input does; `None` if that is not known."""
    layer, kind = node.operation, exact_kind(node.operation)
    if _is_channels_first(layer):
        return None
    if type(layer) is layers.Concatenate:
        return _joined(node, tensor, affine)
    if type(layer) in (layers.Flatten, layers.Reshape):
        return _reshaped(node, affine)
    if type(layer) in _PADDING and affine.shift.any():
        return None
    is_mean = type(layer) in _UPSAMPLING and getattr(layer, "interpolation", "nearest") in ("nearest", "bilinear")
    passes = is_mean or kind.factors == "input"
    return affine if passes or (kind.factors == "input_if_positive" and (affine.scale >= 0).all()) else None


_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
_UPSAMPLING = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D)


def _joined(node: Node, tensor: keras.KerasTensor, affine: _Affine) -> _Affine | None:
    if node.operation.axis not in (-1, len(tensor.shape) - 1):
        return None
    parts = [affine if each is tensor else _Affine.none(each.shape[-1]) for each in node.inputs]
    return _Affine(*map(np.concatenate, zip(*(part.parts for part in parts), strict=True)))


def _reshaped(node: Node, affine: _Affine) -> _Affine | None:
    """The numbers on the new last axis; `None` where they differ along others too."""
    before, channels = node.input_shapes[0], node.output_shapes[0][-1]
    if before[-1] == channels:
        return affine
    sizes = [size for size in before if size is not None]
    if len(sizes) < len(before) or channels is None:
        return None
    rows = [np.broadcast_to(part, sizes).reshape(-1, channels) for part in affine.parts]
    same = all((row == row[0]).all() for row in rows)
    return _Affine(*(row[0] for row in rows)) if same else None


def _folded(layer: Any, held: list[np.ndarray], affine: _Affine) -> list[np.ndarray]:
    """The kernels and bias of a layer that reads `scale * x + shift` for `x`."""
    kernels, bias = held[: len(exact_kind(layer).kernels)], held[len(exact_kind(layer).kernels) :]
    first, *rest = kernels
    axes = exact_kind(layer).kernels[0]
    scale, shift = (_along_inputs(layer, first, part) for part in (affine.scale, affine.shift))
    added = (first * shift).sum(axis=axes.positions(first.ndim))
    made = added.reshape(-1) if axes.depthwise else added.sum(axis=0 if axes.input_axis < axes.output_axis else 1)
    for kernel in rest:
        made = made @ kernel.reshape(-1, kernel.shape[-1])
    biases = [made + (bias[0] if bias else 0.0)] if bias or made.any() else []
    return [first * scale, *rest, *biases]


def _noise(layer: Any, weights: list[np.ndarray], power: np.ndarray) -> float:
    """What rounding a kernel adds to the outputs, up to a factor: squared steps times the power of what they meet."""
    axes, kernel = exact_kind(layer).kernels[0], weights[0]
    kept = axes.output_axes if axes.scale_axes is None else axes.scale_axes
    steps = np.abs(kernel).max(axis=tuple(axis for axis in range(-kernel.ndim, 0) if axis not in kept), keepdims=True)
    return float((np.broadcast_to(steps**2, kernel.shape) * _along_inputs(layer, kernel, power)).sum())


def _along_inputs(layer: Any, kernel: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay values, one for each input channel, along a kernel, whose groups read a part of the channels each."""
    axes = exact_kind(layer).kernels[0]
    if axes.depthwise or axes.input_axis == -1:
        sizes = [size if axis - kernel.ndim == axes.input_axis else 1 for axis, size in enumerate(kernel.shape)]
        return values.reshape(sizes)
    groups = getattr(layer, "groups", 1)
    return np.repeat(values.reshape(groups, -1).T, kernel.shape[-1] // groups, axis=1)


def _is_channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _numbers(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)
