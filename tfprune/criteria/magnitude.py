"""The size of a weight."""

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class Magnitude(WeightCriterion):
    """Score each weight by its absolute value.

    On a trained network the first to try, and hard to beat when training follows. It says nothing before training.

    Reference: Han et al., Learning Both Weights and Connections for Efficient Neural Networks, NeurIPS 2015,
    https://arxiv.org/abs/1506.02626

    Example:

    >>> Magnitude().score(WeightView("kernel", lambda: np.array([[3.0, -4.0]])))
    array([[3., 4.]])
    """

    def score(self, view: WeightView) -> np.ndarray:
        """Return |w|."""
        return np.abs(view.weights)
