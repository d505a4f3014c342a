"""Two layers for one, by a singular value decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import Method, Piece, Ranks, tails
from tfprune.decomposition.vbmf import vbmf_rank


@dataclass(frozen=True)
class SVD(Method):
    """Fewer outputs, and a layer that makes all of them: of `Dense` layers and of convolutions of any window.

    The kernel is taken as a matrix with a row for each input of a window. The first layer has the window, stride and
    padding of the layer, the second one looks at single places. With data, the outputs are projected on their
    principal components, which is the best that there is for any rank.

    Reference: Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI
    2015, https://arxiv.org/abs/1505.06798

    Example:

    >>> first, second = SVD().factors(np.outer([1.0, 2.0], [3.0, 4.0, 5.0]), (1,))
    >>> (first @ second).round(6).tolist()
    [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]]
    """

    optimal_on_data = True

    def refusal(self, layer: Any) -> str:
        """Return why a layer cannot be decomposed so; empty if it can."""
        return ""

    def full(self, shape: Sequence[int]) -> Ranks:
        """Return the ranks above which nothing can be gained."""
        return (min(int(np.prod(shape[:-1])), shape[-1]),)

    def pieces(self, shape: Sequence[int], ranks: Ranks) -> tuple[Piece, ...]:
        """Return the layers that come of a kernel, in the order of their calls."""
        window = tuple(shape[:-2])
        first = Piece((*window, shape[-2], *ranks), tuple(range(len(window))))
        return first, Piece((*(1 for _ in window), *ranks, shape[-1]))

    def factors(self, kernel: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the kernels of the pieces."""
        matrix, (rank,) = kernel.reshape(-1, kernel.shape[-1]), ranks
        if covariance is None:
            first, second = balanced(matrix, rank)
        else:
            # The best matrix of this rank is the kernel behind a projection of its outputs.
            components = np.linalg.eigh(matrix.T @ covariance @ matrix)[1][:, ::-1][:, :rank]
            first, second = matrix @ components, components.T
        shapes = [piece.shape for piece in self.pieces(kernel.shape, ranks)]
        return [first.reshape(shapes[0]), second.reshape(shapes[1])]

    def losses(
        self, kernel: np.ndarray, most: Ranks, covariance: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which ranks there are, and what is lost with each."""
        matrix = kernel.reshape(-1, kernel.shape[-1])
        if covariance is None:
            squares = np.linalg.svd(matrix, compute_uv=False) ** 2
        else:
            squares = np.linalg.eigvalsh(matrix.T @ covariance @ matrix)[::-1].clip(0)
        return np.arange(1, most[0] + 1)[:, None], tails(squares)[: most[0]]

    def noise_ranks(self, kernel: np.ndarray) -> Ranks:
        """Return the ranks above which there is nothing but noise."""
        return (vbmf_rank(kernel.reshape(-1, kernel.shape[-1])),)


@dataclass(frozen=True)
class SpatialSVD(Method):
    """A column of a window and then a row: of `Conv2D` layers whose window has both.

    Stride, dilation and padding of each axis go with the layer that has the window along it.

    Reference: Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions, BMVC 2014,
    https://arxiv.org/abs/1405.3866

    Example:

    >>> [piece.shape for piece in SpatialSVD().pieces((3, 3, 16, 32), (8,))]
    [(3, 1, 16, 8), (1, 3, 8, 32)]
    """

    def refusal(self, layer: Any) -> str:
        """Return why a layer cannot be decomposed so; empty if it can."""
        if type(layer) is keras.layers.Conv2D and min(layer.kernel_size) > 1:
            return ""
        return "it needs a Conv2D with a window of more than one row and column"

    def full(self, shape: Sequence[int]) -> Ranks:
        """Return the ranks above which nothing can be gained."""
        return (min(shape[0] * shape[2], shape[1] * shape[3]),)

    def pieces(self, shape: Sequence[int], ranks: Ranks) -> tuple[Piece, ...]:
        """Return the layers that come of a kernel, in the order of their calls."""
        rows, columns, inputs, outputs = shape
        return Piece((rows, 1, inputs, *ranks), (0,)), Piece((1, columns, *ranks, outputs), (1,))

    def factors(self, kernel: np.ndarray, ranks: Ranks, covariance: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the kernels of the pieces."""
        (rank,) = ranks
        first, second = balanced(_rows_by_columns(kernel), rank)
        rows, columns, inputs, outputs = kernel.shape
        return [
            first.reshape(rows, 1, inputs, rank),
            second.reshape(rank, columns, outputs).transpose(1, 0, 2)[None],
        ]

    def losses(
        self, kernel: np.ndarray, most: Ranks, covariance: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which ranks there are, and what is lost with each."""
        squares = np.linalg.svd(_rows_by_columns(kernel), compute_uv=False) ** 2
        return np.arange(1, most[0] + 1)[:, None], tails(squares)[: most[0]]

    def noise_ranks(self, kernel: np.ndarray) -> Ranks:
        """Return the ranks above which there is nothing but noise."""
        return (vbmf_rank(_rows_by_columns(kernel)),)


def balanced(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two factors of the best matrix of a rank, with the singular values shared between them.

    So both are of one size, as training likes it, and as ranges of half precision and int8 do.

    Args:
        matrix: A matrix `(rows, columns)`.
        rank: The rank.

    Returns:
        Matrices `(rows, rank)` and `(rank, columns)`.
    """
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _rows_by_columns(kernel: np.ndarray) -> np.ndarray:
    rows, columns, inputs, outputs = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(rows * inputs, columns * outputs)
