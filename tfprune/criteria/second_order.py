"""What removing a channel would change the loss or the answers by, to second order in its weights."""

from typing import Any

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView


class SecondOrderStructuredPruning(ChannelCriterion):
    """Score each channel by the change of the loss, to second order, with what it has to do with all other channels.

    With the weights w that make, scale and shift a channel, the gradient g and the Hessian H of the loss, and all such
    weights v of all channels, it is |w g| + |w (H v)| / 2: the Hessian-vector form, SOSP-H, of which H v is gathered at
    the cost of a second backward pass. Scores of different groups are on one scale.

    Reference: Nonnenmacher et al., SOSP: Efficiently Capturing Global Correlations by Second-Order Structured Pruning,
    ICLR 2022, https://arxiv.org/abs/2110.11395

    Args:
        loss: Of which loss the gradient and the Hessian are; see `Criterion`.

    Example:

    >>> from tfprune.criteria import MemberView
    >>> found = {"gradient": np.array([[0.5, 0.0]]), "hessian_weights": np.array([[1.0, -1.0]])}
    >>> kernel = MemberView(
    ...     "kernel", lambda: np.array([[2.0, 4.0]]), "producer", None, 1, np.arange(2), statistics=found)
    >>> SecondOrderStructuredPruning().score(ChannelView("hidden", 2, (kernel,)))
    array([2., 2.])
    """

    needs = ("gradient", "hessian_weights")
    comparable = True

    def __init__(self, loss: Any = "compiled") -> None:
        self.loss = loss

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the estimates, shape (channels,)."""
        members = view.with_role("producer", "affine")
        first, second = (
            view.total((member, (member.rows * member.rows_of(name)).sum(axis=1)) for member in members)
            for name in self.needs
        )
        return np.abs(first) + np.abs(second) / 2


class LabelFreeHessian(ChannelCriterion):
    """Score each channel of each kernel by the curvature at its weights, times their mean square; no labels.

    The trace of the Hessian with respect to the weights of a channel is that of the Fisher information: the sum over
    its weights of mean squared gradients, with labels drawn from what the network answers. Of answers that are plain
    numbers this is the trace of J^T J, with the Jacobian J of the answers.

    Reference: Gordon et al., EPTQ: Enhanced Post-Training Quantization via Hessian-guided Network-wise Optimization,
    2023, https://arxiv.org/abs/2309.11531

    Example:

    >>> from tfprune.criteria import MemberView
    >>> found = {"squared_gradient": np.array([[1.0, 0.5], [2.0, 0.5]])}
    >>> kernel = MemberView(
    ...     "kernel", lambda: np.array([[2.0, 4.0], [0.0, 2.0]]), "producer", None, 1, np.arange(2), statistics=found)
    >>> [scores.tolist() for _, scores in LabelFreeHessian().score(ChannelView("hidden", 2, (kernel,)))]
    [[6.0, 10.0]]
    """

    needs = ("squared_gradient",)

    def score(self, view: ChannelView) -> list[tuple[Any, np.ndarray]]:
        """Return the scores of each kernel that makes the channels."""
        members = view.with_role("producer")
        return [
            (member, member.rows_of("squared_gradient").sum(axis=1) * (member.rows**2).mean(axis=1))
            for member in members
        ]
