"""What removing a channel would change the loss by, to first order."""

from collections.abc import Collection
from typing import Any, Literal, get_args

import numpy as np

from tfprune.common.checks import check_choice
from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView

TaylorForm = Literal["gate", "sum", "squares"]
"""What `Taylor` estimates: `"gate"`, `"sum"` or `"squares"`."""


class Taylor(ChannelCriterion):
    """Score each channel by what its removal changes the loss by, to first order: gradient times value.

    Gradients are means over samples before anything is squared or made positive. At the labels that the network itself
    would draw they are zero but for noise, so true labels and the network's own loss are wanted. `GroupFisher` squares
    the gradients of single samples, and needs no labels.

    Reference: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019,
    https://arxiv.org/abs/1906.10771; Ma et al., LLM-Pruner, NeurIPS 2023, https://arxiv.org/abs/2305.11627

    Args:
        form: `"gate"` is |mean of y dL/dy|, the estimate for a channel y that becomes zero; layers that make it
            together count together. `"sum"` is |sum of w dL/dw| over all weights w that make, scale, shift and read
            the channel, and `"squares"` the sum of (w dL/dw)^2 over them.
        loss: Of which loss the gradients are; see `Criterion`.

    Raises:
        ValueError: If `form` is unknown.

    Example:

    >>> view = ChannelView("hidden", 2, (), statistics={"gate_gradient": np.array([0.5, -2.0])})
    >>> Taylor().score(view)
    array([0.5, 2. ])
    """

    comparable = True

    def __init__(self, form: TaylorForm = "gate", loss: Any = "compiled") -> None:
        check_choice("form", form, get_args(TaylorForm))
        self.form = form
        self.loss = loss
        self.needs: Collection[str] = ("gate_gradient",) if form == "gate" else ("gradient",)

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the estimates, shape (channels,)."""
        if self.form == "gate":
            return np.abs(np.asarray(view.statistics["gate_gradient"], np.float64))
        members = view.with_role("producer", "affine", "consumer")
        products = [(member, member.rows * member.rows_of("gradient")) for member in members]
        if self.form == "sum":
            return np.abs(view.total((member, product.sum(axis=1)) for member, product in products))
        return view.total((member, (product**2).sum(axis=1)) for member, product in products)
