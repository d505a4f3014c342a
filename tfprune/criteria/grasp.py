"""How much of the gradient's flow each weight carries."""

from typing import Any

import numpy as np

from tfprune.common.checks import check_not_negative
from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class GraSP(WeightCriterion):
    """Score each weight by w (Hg): how much the squared norm of the gradient g falls if it goes.

    For networks before their first step. Weights that hinder the gradient have the lowest scores, below zero, and go
    first; H is the Hessian of the loss.

    Reference: Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020,
    https://arxiv.org/abs/2002.07376

    Args:
        temperature: What logits are divided by, as the authors do; it does not touch answers that are no
            probabilities.
        loss: Of which loss the gradient and the Hessian are; see `Criterion`.

    Raises:
        ValueError: If `temperature` is not a number above 0.

    Example:

    >>> product = {"hessian_gradient": np.array([[0.5, -1.0]])}
    >>> GraSP().score(WeightView("kernel", lambda: np.array([[4.0, 1.0]]), statistics=product))
    array([[ 2., -1.]])
    """

    needs = ("hessian_gradient",)
    scope = "global"

    def __init__(self, temperature: float = 200.0, loss: Any = "compiled") -> None:
        if check_not_negative("temperature", temperature) == 0:
            raise ValueError("temperature must be above 0; 1 leaves logits as they are. Received: 0.")
        self.temperature = temperature
        self.loss = loss

    def score(self, view: WeightView) -> np.ndarray:
        """Return w (Hg)."""
        return np.multiply(view.weights, view.statistics["hessian_gradient"], dtype=np.float64)
