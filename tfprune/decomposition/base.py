"""What every decomposition says: which kernels come of one, and what is lost at which rank."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

L = keras.layers
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """One of the layers that take the place of another.

    Attributes:
        shape: The shape of its kernel: `(*window, inputs, outputs)`, or `(*window, channels, 1)` if it is depthwise.
        axes: The spatial axes along which it has the window, stride, dilation and padding of the layer; along the
            others it looks at one place.
        depthwise: Whether each channel is convolved alone.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()
    depthwise: bool = False


class Method(ABC):
    """How a kernel `(*window, inputs, outputs)` becomes a product of several.

    A method has no state: it says which pieces there are for some ranks, how their kernels are computed, and how much
    of the kernel is lost at which ranks. What is lost is the squared error over the squared norm of the kernel, or of
    the outputs where the covariance of the inputs is known.
    """

    num_ranks = 1
    """How many ranks it has."""

    optimal_on_data = False
    """Whether `factors` and `losses` take the covariance of the inputs into account; if not, the last kernel is
    refitted to it."""

    @abstractmethod
    def refusal(self, layer: Any) -> str:
        """Return why a layer cannot be decomposed so; empty if it can.

        Args:
            layer: A `Dense` layer, or a convolution of one group.
        """

    @abstractmethod
    def full(self, shape: Sequence[int]) -> Ranks:
        """Return the ranks above which nothing can be gained.

        Args:
            shape: The shape of a kernel.
        """

    @abstractmethod
    def pieces(self, shape: Sequence[int], ranks: Ranks) -> tuple[Piece, ...]:
        """Return the layers that come of a kernel, in the order of their calls.

        Args:
            shape: The shape of the kernel.
            ranks: The ranks.
        """

    @abstractmethod
    def factors(self, kernel: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the kernels of the pieces.

        Args:
            kernel: The kernel, in float64.
            ranks: The ranks.
            covariance: That of the inputs in one window, in the order of the kernel; None for the same of all.
        """

    @abstractmethod
    def losses(
        self, kernel: np.ndarray, most: Ranks, covariance: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which ranks there are, and what is lost with each.

        Args:
            kernel: The kernel, in float64.
            most: The ranks that are asked for go up to these.
            covariance: As for `factors`.

        Returns:
            Int array `(choices, num_ranks)`, and float array `(choices,)` of fractions.
        """

    @abstractmethod
    def noise_ranks(self, kernel: np.ndarray) -> Ranks:
        """Return the ranks above which variational Bayes finds nothing but noise; 0 where it finds nothing at all.

        Args:
            kernel: The kernel, in float64.
        """

    def __str__(self) -> str:
        return type(self).__name__


def product(pieces: Sequence[Piece], factors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the one kernel that computes what several compute one after another.

    Windows of the pieces lie along different axes, so that the windows of the product are made by broadcasting.

    Args:
        pieces: What the kernels are of.
        factors: The kernels.

    Returns:
        An array `(*window, inputs, outputs)`.

    Example:

    >>> pieces = Piece((2, 1, 3, 1), (0,)), Piece((1, 2, 1, 5), (1,))
    >>> product(pieces, [np.ones(piece.shape) for piece in pieces]).shape
    (2, 2, 3, 5)
    """

    def joined(kernel: np.ndarray, other: tuple[Piece, np.ndarray]) -> np.ndarray:
        piece, factor = other
        return kernel * factor.swapaxes(-1, -2) if piece.depthwise else np.matmul(kernel, factor)

    return functools.reduce(joined, zip(pieces[1:], factors[1:], strict=True), factors[0])


def relative_loss(kernel: np.ndarray, close: np.ndarray, covariance: np.ndarray | None = None) -> float:
    """Return the squared error of a kernel over its squared norm, or of what it computes; 0 if there is nothing.

    Args:
        kernel: The kernel.
        close: What stands for it.
        covariance: That of its inputs.
    """
    wrong, right = (array.reshape(-1, array.shape[-1]) for array in (kernel - close, kernel))
    lost, total = (_square(matrix, covariance) for matrix in (wrong, right))
    return max(lost, 0.0) / total if total > 0 else 0.0


def _square(matrix: np.ndarray, covariance: np.ndarray | None) -> float:
    return float(np.vdot(matrix, matrix if covariance is None else covariance @ matrix))


def tails(squares: np.ndarray) -> np.ndarray:
    """Return what is lost with the first one, two, ... of some squares, as fractions of their sum.

    Example:

    >>> tails(np.array([3.0, 1.0, 0.0]))
    array([0.25, 0.  , 0.  ])
    """
    total = squares.sum()
    if total <= 0:
        return np.zeros(len(squares))
    return np.append(squares[::-1].cumsum()[::-1][1:], 0.0).clip(0) / total


def is_pointwise(shape: Sequence[int]) -> bool:
    """Return whether a kernel has a window of one place, as that of a `Dense` layer."""
    return math.prod(shape[:-2]) == 1
