"""Fewer channels for a window: a Tucker decomposition over inputs and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfprune.decomposition.base import CONVOLUTIONS, Method, Piece, Ranks, is_pointwise
from tfprune.decomposition.vbmf import vbmf_rank


@dataclass(frozen=True)
class Tucker(Method):
    """A window between fewer inputs and fewer outputs: of convolutions whose window is larger than one place.

    A layer at single places makes fewer channels of the inputs, the window is between few channels, and another layer
    at single places makes all outputs. The ranks are the two numbers of channels; where one of them is that of the
    layer itself, its layer is left out. The factors are found by higher-order orthogonal iteration.

    Reference: Kim et al., Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications, ICLR 2016, https://arxiv.org/abs/1511.06530

    Attributes:
        iterations: How many iterations there may be; it stops early where they change nothing.

    Example:

    >>> [piece.shape for piece in Tucker().pieces((3, 3, 16, 32), (4, 8))]
    [(1, 1, 16, 4), (3, 3, 4, 8), (1, 1, 8, 32)]
    """

    iterations: int = 20

    num_ranks = 2

    def refusal(self, layer: Any) -> str:
        """Return why a layer cannot be decomposed so; empty if it can."""
        if type(layer) in CONVOLUTIONS and not is_pointwise(layer.kernel.shape):
            return ""
        return "it needs a convolution with a window of more than one place"

    def full(self, shape: Sequence[int]) -> Ranks:
        """Return the ranks above which nothing can be gained."""
        size = int(np.prod(shape[:-2]))
        return min(shape[-2], size * shape[-1]), min(shape[-1], size * shape[-2])

    def pieces(self, shape: Sequence[int], ranks: Ranks) -> tuple[Piece, ...]:
        """Return the layers that come of a kernel, in the order of their calls."""
        window = tuple(shape[:-2])
        place, (few_inputs, few_outputs) = tuple(1 for _ in window), ranks
        core = Piece((*window, few_inputs, few_outputs), tuple(range(len(window))))
        first = [Piece((*place, shape[-2], few_inputs))] if few_inputs < shape[-2] else []
        last = [Piece((*place, few_outputs, shape[-1]))] if few_outputs < shape[-1] else []
        return *first, core, *last

    def factors(self, kernel: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the kernels of the pieces."""
        inputs, outputs = self._bases(kernel, ranks)
        core = np.einsum("...nm,nr,ms->...rs", kernel, inputs, outputs, optimize=True)
        made = list[np.ndarray]()
        for piece in self.pieces(kernel.shape, ranks):
            matrix = core if piece.axes else inputs if not made else outputs.T
            made.append(matrix.reshape(piece.shape))
        return made

    def losses(
        self, kernel: np.ndarray, most: Ranks, covariance: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return every pair of ranks that is no worse than another, with what the first projections lose.

        They are orthogonal, so that one decomposition tells all pairs; the iteration can only lose less.
        """
        inputs, outputs = (_basis(kernel, axis, size) for axis, size in zip((-2, -1), most, strict=True))
        core = np.einsum("...nm,nr,ms->...rs", kernel, inputs, outputs, optimize=True)
        kept = np.square(core).sum(axis=tuple(range(core.ndim - 2))).cumsum(0).cumsum(1)
        total = float(np.square(kernel).sum())
        lost = (1 - kept / total).clip(0) if total > 0 else np.zeros_like(kept)
        ranks = np.stack(np.meshgrid(*(np.arange(1, size + 1) for size in most), indexing="ij"), axis=-1)
        return ranks.reshape(-1, 2), lost.ravel()

    def noise_ranks(self, kernel: np.ndarray) -> Ranks:
        """Return the ranks above which there is nothing but noise."""
        return vbmf_rank(_unfolded(kernel, -2)), vbmf_rank(_unfolded(kernel, -1))

    def _bases(self, kernel: np.ndarray, ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
        """Orthonormal bases of the channels that are kept; the channels themselves where all are."""
        size_in, size_out = kernel.shape[-2:]
        rank_in, rank_out = ranks
        if rank_in == size_in or rank_out == size_out:  # one side alone has its best basis at once
            sides = ((-2, rank_in, size_in), (-1, rank_out, size_out))
            first, second = (np.eye(size) if rank == size else _basis(kernel, axis, rank) for axis, rank, size in sides)
            return first, second
        inputs, outputs = _basis(kernel, -2, rank_in), _basis(kernel, -1, rank_out)
        kept = 0.0
        for _ in range(self.iterations):
            inputs = _basis(kernel @ outputs, -2, rank_in)
            outputs = _basis(np.einsum("...nm,nr->...rm", kernel, inputs, optimize=True), -1, rank_out)
            now = float(np.square(np.einsum("...nm,nr,ms->...rs", kernel, inputs, outputs, optimize=True)).sum())
            if now <= kept * (1 + 1e-6):
                break
            kept = now
        return inputs, outputs


def _unfolded(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def _basis(kernel: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The directions in which a kernel varies most along an axis, by the eigenvectors of the small matrix."""
    rows = _unfolded(kernel, axis)
    return np.linalg.eigh(rows @ rows.T)[1][:, ::-1][:, :rank]
