"""How much a channel carries, on the data that the network is for."""

from typing import Literal

import numpy as np

from tfprune.common.checks import check_choice
from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView


class APoZ(ChannelCriterion):
    """Score each channel by how often it is not zero where it is read; no labels.

    The paper prunes by the average percentage of zeros (APoZ) behind a ReLU; the score is 1 minus that share. Behind
    an activation that is never exactly zero, all channels score 1.

    Reference: Hu et al., Network Trimming, 2016, https://arxiv.org/abs/1607.03250

    Example:

    >>> view = ChannelView("hidden", 2, (), statistics={"activation_zeros": np.array([0.75, 0.0])})
    >>> APoZ().score(view)
    array([0.25, 1.  ])
    """

    needs = ("activation_zeros",)

    def score(self, view: ChannelView) -> np.ndarray:
        """Return 1 - APoZ, shape (channels,)."""
        return 1.0 - np.asarray(view.statistics["activation_zeros"], np.float64)


class MeanActivation(ChannelCriterion):
    """Score each channel by the size of what it carries: the mean over samples of |mean over positions|; no labels.

    Reference: Tan and Motani, DropNet: Reducing Neural Network Complexity via Iterative Pruning, ICML 2020,
    https://proceedings.mlr.press/v119/tan20a.html

    Args:
        drop: Which channels go first: the `"smallest"`, or the `"largest"`, the paper's control; their scores are
            negative.

    Raises:
        ValueError: If `drop` is neither.

    Example:

    >>> view = ChannelView("hidden", 2, (), statistics={"activation_magnitude": np.array([0.5, 2.0])})
    >>> MeanActivation().score(view), MeanActivation(drop="largest").score(view)
    (array([0.5, 2. ]), array([-0.5, -2. ]))
    """

    needs = ("activation_magnitude",)

    def __init__(self, drop: Literal["smallest", "largest"] = "smallest") -> None:
        check_choice("drop", drop, ("smallest", "largest"))
        self.drop = drop

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the sizes, or minus the sizes, shape (channels,)."""
        sizes = np.asarray(view.statistics["activation_magnitude"], np.float64)
        return sizes if self.drop == "smallest" else -sizes


class Fluctuation(ChannelCriterion):
    """Score each channel by how much what is made of it varies: its variance times the squared norm of what reads it.

    A channel that hardly varies is a constant, which a bias can stand in for. No labels.

    Reference: An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models, AAAI 2024,
    https://arxiv.org/abs/2312.11983

    Example:

    >>> from tfprune.criteria import MemberView
    >>> reader = MemberView("kernel", lambda: np.array([[2.0, 1.0], [3.0, 0.0]]), "consumer", None, 0, np.arange(2))
    >>> view = ChannelView("hidden", 2, (reader,), statistics={"activation_variance": np.array([1.0, 0.5])})
    >>> Fluctuation().score(view)
    array([5. , 4.5])
    """

    needs = ("activation_variance",)

    def score(self, view: ChannelView) -> np.ndarray:
        """Return the weighed variances, shape (channels,)."""
        readers = view.total((member, (member.rows**2).sum(axis=1)) for member in view.with_role("consumer"))
        return readers * view.statistics["activation_variance"]
