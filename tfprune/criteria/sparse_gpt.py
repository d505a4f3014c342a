"""Weights that go, and the others changed so that outputs stay nearly the same."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from tfprune.common.checks import check_count, check_not_negative
from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView

Part: TypeAlias = tuple[slice, Callable[[np.ndarray], np.ndarray]]
"""Some inputs of a layer, and a function from their scores, shape (inputs, outputs), to a mask of what stays."""


class SparseGPT(WeightCriterion):
    """Score each weight by what its going costs the outputs of its layer, and let later inputs make up for it.

    For trained networks that will not be trained again: inputs without labels suffice. H is the Gram matrix of a
    layer's inputs, so w^2 / (2 [H^-1]_jj) is the squared error of the outputs that is left where a weight went and
    all others of its output make up for it (Optimal Brain Surgeon). SparseGPT takes the inputs in their order, and
    only later ones make up, so that all outputs share one factorization.

    Reference: Frantar and Alistarh, SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot, ICML
    2023, https://arxiv.org/abs/2301.00774; Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal
    Brain Surgeon, NeurIPS 1992.

    Args:
        damping: Added to the diagonal of H, as a part of its mean: larger where samples are few.
        block_size: How many inputs are chosen from together.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> inputs = np.array([[1.0, 1.0], [1.0, -1.0]])  # independent: nothing can make up for the other
    >>> gram = {"input_gram": inputs.T @ inputs}
    >>> SparseGPT(damping=0).score(WeightView("kernel", lambda: np.array([[3.0], [1.0]]), statistics=gram)).tolist()
    [[18.0], [2.0]]
    """

    needs = ("input_gram",)

    def __init__(self, damping: float = 0.01, block_size: int = 128) -> None:
        self.damping = check_not_negative("damping", damping)
        self.block_size = check_count("block_size", block_size)

    def score(self, view: WeightView) -> np.ndarray:
        """Return w^2 / (2 [H^-1]_jj) for weights of shape (inputs, outputs)."""
        upper, _ = self._factor(view)
        inverse = np.einsum("ij,ij->j", upper, upper)
        return np.square(view.weights, dtype=np.float64) / (2 * inverse[:, None])

    def prune(self, view: WeightView, mask: np.ndarray, parts: Iterable[Part]) -> tuple[np.ndarray, np.ndarray]:
        """Return which weights stay, and what they become.

        Args:
            view: Weights of shape (inputs, outputs), with the Gram matrix of the inputs.
            mask: Which weights live, of the same shape.
            parts: The inputs that are chosen from together, in their order; all of them.

        Returns:
            The new mask, and the weights in float64, zero where they are pruned.
        """
        upper, dead = self._factor(view)
        mask, weights = mask.copy(), view.weights.astype(np.float64)
        weights[dead] = 0
        for rows, stay in parts:
            scores = (weights[rows] / np.diagonal(upper)[rows, None]) ** 2
            mask[rows] &= stay(np.where(mask[rows], scores, -np.inf))
            for row in range(rows.start, rows.stop):
                error = np.where(mask[row], 0, weights[row]) / upper[row, row]
                weights[row:] -= np.outer(upper[row, row:], error)
        return mask, np.where(mask, weights, 0)

    def _factor(self, view: WeightView) -> tuple[np.ndarray, np.ndarray]:
        """The upper Cholesky factor of the inverse of the damped Hessian, and which inputs are always zero."""
        hessian = 2 * view.statistics["input_gram"].astype(np.float64)
        diagonal = np.einsum("ii->i", hessian)  # a view into it
        dead = diagonal == 0
        diagonal[dead] = 1
        diagonal += self.damping * diagonal.mean()
        try:
            return np.linalg.cholesky(np.linalg.inv(hessian)).T, dead
        except np.linalg.LinAlgError:
            raise ValueError(
                f"The Gram matrix of the {len(hessian)} inputs of {view.name!r} has no inverse: samples are "
                f"too few, or inputs depend on each other. Give more samples, or a damping above {self.damping:g}."
            ) from None
