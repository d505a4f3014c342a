"""A depthwise window between two layers at single places: a CP decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import Method, Piece, Ranks, is_pointwise, product, relative_loss
from tfprune.decomposition.vbmf import vbmf_rank

_CHOICES = 8
_RIDGE = 1e-11
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class CP(Method):
    """A sum of products of a window, of inputs and of outputs: of `Conv1D` and `Conv2D` layers.

    A layer at single places makes as many channels as the rank, each of them is convolved alone, and another layer at
    single places makes the outputs: the inverted bottleneck of mobile networks. The places of a window are one mode, as
    a depthwise operator with a whole window runs faster on a phone than two with a column and a row.

    Each rank is a fit of its own by alternating least squares, so only a few ranks are tried where they are chosen by
    an error or a budget.

    Reference: Astrid and Lee, CP-decomposition with Tensor Power Method for Convolutional Neural Networks Compression,
    2017, https://arxiv.org/abs/1701.07148, after Lebedev et al., ICLR 2015, https://arxiv.org/abs/1412.6553

    Attributes:
        iterations: How many iterations a fit may have.

    Example:

    >>> [piece.shape for piece in CP().pieces((3, 3, 16, 32), (8,))]
    [(1, 1, 16, 8), (3, 3, 8, 1), (1, 1, 8, 32)]
    """

    iterations: int = 100

    def refusal(self, layer: Any) -> str:
        """Return why a layer cannot be decomposed so; empty if it can."""
        if type(layer) not in (keras.layers.Conv1D, keras.layers.Conv2D) or is_pointwise(layer.kernel.shape):
            return "it needs a Conv1D or Conv2D with a window of more than one place"
        if len(set(layer.strides)) > 1:
            return f"TensorFlow has no depthwise convolution with strides that differ, as {layer.strides} do"
        return "TensorFlow has no causal depthwise convolution" if layer.padding == "causal" else ""

    def full(self, shape: Sequence[int]) -> Ranks:
        """Return the ranks above which nothing can be gained."""
        size, inputs, outputs = int(np.prod(shape[:-2])), shape[-2], shape[-1]
        return (min(size * inputs, size * outputs, inputs * outputs),)

    def pieces(self, shape: Sequence[int], ranks: Ranks) -> tuple[Piece, ...]:
        """Return the layers that come of a kernel, in the order of their calls."""
        window, (rank,) = tuple(shape[:-2]), ranks
        place = tuple(1 for _ in window)
        return (
            Piece((*place, shape[-2], rank)),
            Piece((*window, rank, 1), tuple(range(len(window))), depthwise=True),
            Piece((*place, rank, shape[-1])),
        )

    def factors(self, kernel: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the kernels of the pieces."""
        (rank,) = ranks
        tensor = kernel.reshape(-1, *kernel.shape[-2:])
        window, inputs, outputs = balanced_cp(tensor, rank, self.iterations)
        first, middle, last = (piece.shape for piece in self.pieces(kernel.shape, ranks))
        return [inputs.reshape(first), window.reshape(middle), outputs.T.reshape(last)]

    def losses(
        self, kernel: np.ndarray, most: Ranks, covariance: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which ranks there are, and what is lost with each."""
        ranks = np.unique(np.geomspace(1, most[0], _CHOICES).round().astype(int))
        made = [product(self.pieces(kernel.shape, (rank,)), self.factors(kernel, (rank,))) for rank in ranks.tolist()]
        return ranks[:, None], np.array([relative_loss(kernel, each) for each in made])

    def noise_ranks(self, kernel: np.ndarray) -> Ranks:
        """Return the ranks above which there is nothing but noise."""
        rows = (kernel.reshape(-1, kernel.shape[-1]), np.moveaxis(kernel, -2, -1).reshape(-1, kernel.shape[-2]))
        return (max(map(vbmf_rank, rows)),)


def balanced_cp(tensor: np.ndarray, rank: int, iterations: int) -> list[np.ndarray]:
    """Return the factors of a sum of outer products near a tensor, by alternating least squares.

    Args:
        tensor: An array of three axes.
        rank: How many products.
        iterations: How many iterations there may be; it stops early where one changes next to nothing.

    Returns:
        For each axis a matrix `(size, rank)`; the columns of one product have the same length.

    Example:

    >>> tensor = np.einsum("i,j,k", [1.0, 2.0], [1.0, -1.0, 3.0], [2.0, 0.5])
    >>> np.allclose(np.einsum("ir,jr,kr->ijk", *balanced_cp(tensor, 1, 20)), tensor)
    True
    """
    total = float(np.square(tensor).sum())
    modes = [_begin(tensor, axis, rank) for axis in range(3)]
    before = np.inf
    for _ in range(iterations):
        for axis in range(3):
            first, second = (modes[other] for other in range(3) if other != axis)
            gram = (first.T @ first) * (second.T @ second)
            pairs = (first[:, None] * second).reshape(-1, rank)
            found = np.moveaxis(tensor, axis, 0).reshape(len(modes[axis]), -1) @ pairs
            # A trace of a ridge, as products that become alike would make the matrix singular.
            ridge = max(_RIDGE * np.trace(gram) / rank, np.finfo(float).tiny)
            modes[axis] = np.linalg.solve(gram + ridge * np.eye(rank), found.T).T
        lost = total - 2 * np.vdot(found, modes[2]) + np.vdot(gram, modes[2].T @ modes[2])
        modes = _balanced(modes)
        if before - lost <= _TOLERANCE * lost:
            break
        before = float(lost)
    return modes


def _begin(tensor: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The directions in which a tensor varies most along an axis, and random ones where it has no more."""
    rows = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    found = np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank]
    more = np.random.default_rng(axis).normal(size=(len(rows), rank - found.shape[1]))
    return np.hstack([found, more])


def _balanced(modes: Sequence[np.ndarray]) -> list[np.ndarray]:
    sizes = [np.linalg.norm(mode, axis=0) for mode in modes]
    size = np.cbrt(np.prod(sizes, axis=0))
    return [mode * (size / np.where(own > 0, own, 1)) for mode, own in zip(modes, sizes, strict=True)]
