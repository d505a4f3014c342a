"""Weights by their size and by what they are multiplied with."""

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class Wanda(WeightCriterion):
    """Score each weight by |w| times the norm of the inputs that it is multiplied with; compared per output.

    For trained networks without training after it: inputs without labels suffice. Of a convolution every weight has a
    norm of its own, over all positions of its window; so weights at the border of the window, where padding is
    multiplied, count a little less. Weights are compared with those of the same output, of which each keeps as many.

    Reference: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024,
    https://arxiv.org/abs/2306.11695

    Example:

    >>> norms = {"input_norm": np.array([[2.0], [1.0]])}
    >>> Wanda().score(WeightView("kernel", lambda: np.array([[1.0], [-3.0]]), statistics=norms))
    array([[2.],
           [3.]])
    """

    needs = ("input_norm",)
    scope = "output"

    def score(self, view: WeightView) -> np.ndarray:
        """Return |w| times the norm of its inputs."""
        return np.abs(np.multiply(view.weights, view.statistics["input_norm"], dtype=np.float64))
