"""Fisher information of a gate on each channel of a group."""

from typing import Any

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView


class GroupFisher(ChannelCriterion):
    """Score each channel by the Fisher information of a gate on it: the mean over samples of (y dL/dy)^2.

    Were a channel y multiplied by a gate z, the loss of a sample would have the gradient s = sum of y dL/dy in z. Its
    square, averaged over samples, is twice the loss that removing the channel adds, to second order, where the network
    is at a minimum. All that read a channel, also behind additions, share one gate: their s are added before they are
    squared. Labels are drawn from what the network answers, so that data needs none.

    Scores of different groups are on one scale, so they can be ranked globally without normalization, and weighed by
    what a channel costs.

    Reference: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021,
    https://arxiv.org/abs/2108.00708

    Args:
        temperature: What the logits of a softmax are divided by before labels are drawn. Above 1, more samples carry
            a gradient where the network is sure of nearly all.
        loss: Of which loss the gradients are; see `Criterion`.

    Example:

    >>> view = ChannelView("hidden", 2, (), statistics={"gate_gradient_squared": np.array([0.5, 2.0])})
    >>> GroupFisher().score(view)
    array([0.5, 2. ])
    """

    needs = ("gate_gradient_squared",)
    comparable = True

    def __init__(self, temperature: float = 1.0, loss: Any = "sampled") -> None:
        self.temperature = temperature
        self.loss = loss

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the information, shape (channels,)."""
        return np.asarray(view.statistics["gate_gradient_squared"], np.float64)
