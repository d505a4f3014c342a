"""The norm of all that makes, scales and reads a channel."""

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.norms import check_order
from tfprune.criteria.views import ChannelView


class GroupNorm(ChannelCriterion):
    """Score each channel by the p-norm over its whole group: kernels that make it, gammas, and kernels that read it.

    A kernel with small weights matters if what reads it has large ones, which a norm of the kernel alone does not see.
    Biases, beta and moving statistics do not count. Norms of different groups are not on one scale, so rank them
    globally with a normalization, as `Ranking("global")` does.

    Reference: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, https://arxiv.org/abs/2301.12900

    Args:
        p: The order of the norm, above 0.

    Raises:
        ValueError: If `p` is not a number above 0.

    Example:

    >>> from tfprune.criteria import ChannelView, MemberView
    >>> kernel = MemberView("kernel", lambda: np.array([[2.0, 1.0], [1.0, 0.0]]), "producer", None, 1, np.arange(2))
    >>> reader = MemberView("kernel", lambda: np.array([[2.0], [0.0]]), "consumer", None, 0, np.arange(2))
    >>> GroupNorm().score(ChannelView("hidden", 2, (kernel, reader)))
    array([3., 1.])
    """

    def __init__(self, p: float = 2.0) -> None:
        self.p = check_order(p)

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the norms, shape (channels,)."""
        members = [member for member in view.members if member.multiplies]
        return view.total((each, (np.abs(each.rows) ** self.p).sum(axis=1)) for each in members) ** (1 / self.p)
