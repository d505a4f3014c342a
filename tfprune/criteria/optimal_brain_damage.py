"""What the loss gains, to second order, if a weight goes."""

from typing import Any

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class OptimalBrainDamage(WeightCriterion):
    """Score each weight by w^2 h / 2: how much the loss of a trained network rises if the weight goes alone.

    h, the diagonal of the Hessian, is taken for that of the Fisher information: the mean over samples of squared
    gradients, with labels drawn from what the network answers, so that data needs none.

    Reference: LeCun et al., Optimal Brain Damage, NeurIPS 1989,
    https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html

    Args:
        loss: Of which loss the gradients are; see `Criterion`.

    Example:

    >>> squares = {"squared_gradient": np.array([[0.5, 1.0]])}
    >>> OptimalBrainDamage().score(WeightView("kernel", lambda: np.array([[4.0, 1.0]]), statistics=squares))
    array([[4. , 0.5]])
    """

    needs = ("squared_gradient",)
    scope = "global"

    def __init__(self, loss: Any = "sampled") -> None:
        self.loss = loss

    def score(self, view: WeightView) -> np.ndarray:
        """Return w^2 h / 2."""
        return np.square(view.weights, dtype=np.float64) * view.statistics["squared_gradient"] / 2
