"""Magnitudes that can be compared across layers."""

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class LAMP(WeightCriterion):
    """Score each weight by its square over the sum of the squares in its layer that are at least as large.

    The largest weight of every layer scores 1, so that a global ranking chooses the sparsity of each layer and empties
    none. Within a layer the order is that of magnitudes.

    Reference: Lee et al., Layer-Adaptive Sparsity for the Magnitude-Based Pruning, ICLR 2021,
    https://arxiv.org/abs/2010.07611

    Example:

    >>> LAMP().score(WeightView("kernel", lambda: np.array([[1.0, -2.0, 2.0]])))
    array([[0.11111111, 0.5       , 0.5       ]])
    """

    scope = "global"

    def score(self, view: WeightView) -> np.ndarray:
        """Return the shares."""
        squares = np.square(view.weights.ravel(), dtype=np.float64)
        ascending = np.sort(squares)
        at_least = np.cumsum(ascending[::-1])[::-1]
        sums = at_least[np.searchsorted(ascending, squares)]
        return np.divide(squares, sums, out=np.zeros_like(squares), where=sums > 0).reshape(view.weights.shape)
