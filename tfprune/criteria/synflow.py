"""How much flows through each weight if nothing is known but the architecture."""

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class SynFlow(WeightCriterion):
    """Score each weight by |w dR/dw|, its share of all paths from inputs to outputs; it needs no data.

    R is the sum of the outputs of the network made linear and positive, for an input of ones: weights by their absolute
    value, without biases and activations. In a chain of layers the scores of each layer have the same sum, so that a
    wide layer's weights score low, and no layer is emptied if weights go in many rounds.

    Reference: Tanaka et al., Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow,
    NeurIPS 2020, https://arxiv.org/abs/2006.05467

    Example:

    >>> flow = {"synaptic_flow": np.array([[0.5, 1.0]])}
    >>> SynFlow().score(WeightView("kernel", lambda: np.array([[4.0, -1.0]]), statistics=flow))
    array([[2., 1.]])
    """

    needs = ("synaptic_flow",)
    scope = "global"
    rounds = 100

    def score(self, view: WeightView) -> np.ndarray:
        """Return |w dR/dw|."""
        return np.abs(np.multiply(view.weights, view.statistics["synaptic_flow"], dtype=np.float64))
