"""How sensitive the loss is to each connection."""

from typing import Any

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class SNIP(WeightCriterion):
    """Score each weight by |w dL/dw|: how fast the loss changes as its connection is taken out.

    For networks before their first step: one look at labelled data, then training of what is left. Scores are divided
    by their sum over the network, as in the paper, which does not change their order.

    Reference: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019,
    https://arxiv.org/abs/1810.02340

    Args:
        loss: Of which loss the gradient is; see `Criterion`.

    Example:

    >>> gradient = {"gradient": np.array([[0.5, -1.0]])}
    >>> SNIP().score(WeightView("kernel", lambda: np.array([[4.0, 1.0]]), statistics=gradient))
    array([[2., 1.]])
    """

    needs = ("gradient",)
    scope = "global"
    sums_to_one = True

    def __init__(self, loss: Any = "compiled") -> None:
        self.loss = loss

    def score(self, view: WeightView) -> np.ndarray:
        """Return |w dL/dw|, not divided yet."""
        return np.abs(np.multiply(view.weights, view.statistics["gradient"], dtype=np.float64))
