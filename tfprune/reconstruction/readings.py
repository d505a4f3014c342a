"""Layers as matrix products: for each kind of layer, what its kernel is multiplied by at one position."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph.kinds import KernelAxes, exact_kind

layers = keras.layers


class Reading(ABC):
    """How a layer reads its input: at each position, `rows @ matrix + bias`, before the activation.

    A position is a sample and a place in what comes out. Channels that do not read the same inputs are in different
    groups, as in grouped and depthwise convolutions.

    Args:
        layer: The layer.

    Attributes:
        layer: The layer.
        axes: Its kernel, the last one if it has several.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.axes: KernelAxes = exact_kind(layer).kernels[-1]

    @property
    def kernel(self) -> keras.Variable:
        """The kernel."""
        return self.axes.of(self.layer)

    @property
    def bias(self) -> keras.Variable | None:
        """The bias, if there is one."""
        return self.layer.bias

    @abstractmethod
    def places(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return how many places there are along each axis of what comes out, but for its channels.

        Args:
            shape: The shape of an input, with the batch.

        Returns:
            The sizes, that of the batch first.
        """

    @abstractmethod
    def rows(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the kernel is multiplied by at some positions.

        Args:
            x: An input, with the batch.
            where: The positions: an index array for each axis of `places`.

        Returns:
            An array `(positions, groups, inputs)`, in float64.
        """

    @abstractmethod
    def values(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """Return the channels of an output at some positions, as a float64 array `(positions, channels)`."""

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        """Return a kernel as an array `(groups, inputs, outputs)`."""
        return kernel.reshape(1, -1, self._num_outputs)

    def folded(self, matrix: np.ndarray) -> np.ndarray:
        """Return a matrix in the shape of the kernel."""
        return matrix.reshape(tuple(self.kernel.shape))

    @property
    def _num_outputs(self) -> int:
        return math.prod(self.kernel.shape[axis] for axis in self.axes.output_axes)

    def outputs(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the layer computes before its activation: an array `(positions, channels)`."""
        made = np.matmul(self.rows(x, where).transpose(1, 0, 2), self.matrix(self.kernel.numpy().astype(np.float64)))
        flat = made.transpose(1, 0, 2).reshape(len(where[0]), -1)
        return flat if self.bias is None else flat + self.bias.numpy().astype(np.float64).ravel()


class _Dense(Reading):
    """`Dense`: the last axis is summed."""

    def places(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape[:-1])

    def rows(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        return self.values(x, where)[:, None, :]

    def values(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        return x[tuple(where)].astype(np.float64)


class _Einsum(Reading):
    """`EinsumDense` whose output is made of axes of the input that stay and then of all axes that the kernel makes."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._summed = _summed(layer) or []

    def places(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape[: len(shape) - len(self._summed)])

    def rows(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        summed = x[tuple(where)].transpose(0, *(1 + axis for axis in self._summed))
        return summed.reshape(len(where[0]), 1, -1).astype(np.float64)

    def values(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        return x[tuple(where)].reshape(len(where[0]), -1).astype(np.float64)


class _Convolution(Reading):
    """Convolutions: of any rank, strided, dilated, grouped, depthwise; the second kernel of separable ones."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self._first = exact_kind(layer).kernels[0]
        self._window = tuple(self._first.of(layer).shape[:-2])

    def places(self, shape: Sequence[int]) -> tuple[int, ...]:
        sizes = shape[2:] if self._is_channels_first else shape[1:-1]
        return (shape[0], *(self._along(axis, size)[0] for axis, size in enumerate(sizes)))

    def rows(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        patches = self._patches(x, where)
        if self._first.depthwise and self._first is not self.axes:  # separable: what the depthwise kernel makes of them
            depthwise = self._first.of(self.layer).numpy().astype(np.float64)
            window = patches.reshape(len(patches), -1, depthwise.shape[-2])
            made = np.einsum("rkc,kcm->rcm", window, depthwise.reshape(-1, *depthwise.shape[-2:]))
            return made.reshape(len(patches), 1, -1)
        groups = self._num_groups
        channels = patches.shape[-1] // groups
        return (
            patches.reshape(len(patches), -1, groups, channels).transpose(0, 2, 1, 3).reshape(len(patches), groups, -1)
        )

    def values(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        return self._channels_last(x)[tuple(where)].astype(np.float64)

    def matrix(self, kernel: np.ndarray) -> np.ndarray:
        groups = self._num_groups
        return kernel.reshape(-1, groups, self._num_outputs // groups).transpose(1, 0, 2)

    def folded(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.transpose(1, 0, 2).reshape(tuple(self.kernel.shape))

    @property
    def _num_groups(self) -> int:
        return int(self.kernel.shape[-2] if self.axes.depthwise else getattr(self.layer, "groups", 1))

    @property
    def _is_channels_first(self) -> bool:
        return bool(self.layer.data_format == "channels_first")

    def _channels_last(self, x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 1, -1) if self._is_channels_first else x

    def _along(self, axis: int, size: int) -> tuple[int, int]:
        """How many places there are along an axis of this size, and where the window of the first one begins."""
        stride, dilation = self.layer.strides[axis], self.layer.dilation_rate[axis]
        reach = (self._window[axis] - 1) * dilation
        if self.layer.padding == "valid":
            return (size - reach - 1) // stride + 1, 0
        count = -(-size // stride)
        if self.layer.padding == "causal":
            return count, -reach
        return count, -(max((count - 1) * stride + reach + 1 - size, 0) // 2)

    def _patches(self, x: np.ndarray, where: Sequence[np.ndarray]) -> np.ndarray:
        """The windows at some positions, `(positions, *window, channels)`, with zeros where they reach outside."""
        x, rank = self._channels_last(x), len(self._window)
        index, inside = [where[0].reshape(-1, *(1,) * rank)], np.ones((1,) * (rank + 1), bool)
        for axis, width in enumerate(self._window):
            size = x.shape[1 + axis]
            offsets = np.arange(width) * self.layer.dilation_rate[axis] + self._along(axis, size)[1]
            place = where[1 + axis][:, None] * self.layer.strides[axis] + offsets
            place = place.reshape(len(place), *(width if other == axis else 1 for other in range(rank)))
            inside = inside & (place >= 0) & (place < size)
            index.append(place.clip(0, size - 1))
        return np.where(inside[..., None], x[tuple(index)].astype(np.float64), 0.0)


KINDS: dict[type, type[Reading]] = {
    layers.Dense: _Dense,
    layers.EinsumDense: _Einsum,
    **dict.fromkeys(
        (
            *(layers.Conv1D, layers.Conv2D, layers.Conv3D),
            *(layers.DepthwiseConv1D, layers.DepthwiseConv2D),
            *(layers.SeparableConv1D, layers.SeparableConv2D),
        ),
        _Convolution,
    ),
}


def reading_of(layer: Any) -> Reading | None:
    """Return how a layer reads its input, or `None` where that is no matrix product that is known here.

    Args:
        layer: Any layer or operation.

    Example:

    >>> layer = keras.layers.Conv2D(3, 3, strides=2)
    >>> layer.build((None, 9, 9, 2))
    >>> reading_of(layer).places((5, 9, 9, 2))
    (5, 4, 4)
    """
    kind = KINDS.get(type(layer))
    if kind is None or (kind is _Einsum and not _summed(layer)):
        return None
    return kind(layer)


def _summed(layer: Any) -> list[int] | None:
    """The axes that an `EinsumDense` sums, in the kernel's order, of those behind the axes that stay.

    `None` if it is more than `stay + summed, summed + made -> stay + made` with a bias for all that is made.
    """
    operands, output = layer.equation.replace(" ", "").split("->")
    read, kernel = operands.split(",")
    summed = [letter for letter in kernel if letter in read]
    made = kernel[len(summed) :]
    stays, last = read[: len(read) - len(summed)], read[len(read) - len(summed) :]
    if kernel != "".join(summed) + made or sorted(last) != sorted(summed) or output != stays + made:
        return None
    if layer.bias is not None and tuple(layer.bias.shape) != tuple(layer.kernel.shape[len(summed) :]):
        return None
    return [last.index(letter) for letter in summed]
