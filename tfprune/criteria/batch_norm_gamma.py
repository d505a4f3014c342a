"""The size of the gammas that channels are multiplied by."""

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView, MemberView


class BatchNormGamma(ChannelCriterion):
    """Score each channel by the absolute value of its gamma: how much of it normalization lets through.

    With a global ranking and a network trained with a penalty on gammas, this is network slimming. Gammas of different
    layers are on one scale, so `Ranking("global", normalize="none")` is the paper's. Where several layers multiply a
    channel, the ranking's `reduce` makes one score of them. Every group needs a gamma; leave others out with `exclude`.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    https://arxiv.org/abs/1708.06519

    Raises:
        ValueError: When it scores, if a channel has no gamma.

    Example:

    >>> from tfprune.criteria import ChannelView, MemberView
    >>> gamma = MemberView("gamma", lambda: np.array([0.5, -2.0]), "affine", "scale", 0, np.arange(2))
    >>> [scores.tolist() for _, scores in BatchNormGamma().score(ChannelView("conv", 2, (gamma,)))]
    [[0.5, 2.0]]
    """

    def score(self, view: ChannelView) -> list[tuple[MemberView, np.ndarray]]:
        """Return |gamma| of each normalization layer that multiplies the channels."""
        return [(gamma, np.abs(gamma.rows).sum(axis=1)) for gamma in gammas_of(view, self)]


def gammas_of(view: ChannelView, criterion: ChannelCriterion) -> list[MemberView]:
    """Return the gammas that multiply the channels.

    Args:
        view: The channels.
        criterion: Who asks, for the message.

    Raises:
        ValueError: If a channel has none.
    """
    gammas = [member for member in view.with_role("affine") if member.name == "gamma"]
    covered = np.isin(np.arange(view.size), np.concatenate([np.zeros(0, int), *(each.channels for each in gammas)]))
    if not covered.all():
        raise ValueError(
            f"{type(criterion).__name__} cannot score {view.name!r}: {(~covered).sum()} of its {view.size} channels "
            "pass through no gamma. Leave its layers out with `exclude`, or use another criterion, such as GroupNorm()."
        )
    return gammas
