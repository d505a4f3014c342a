"""What normalization lets through a ReLU, told by gamma and beta alone."""

import math

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.batch_norm_gamma import gammas_of
from tfprune.criteria.views import ChannelView, MemberView


class GammaBeta(ChannelCriterion):
    """Score each channel by the mean that a ReLU makes of it, as its gamma and beta tell without data.

    Normalized channels have mean 0 and variance 1, so behind gamma and beta they are about N(beta, gamma^2), of which
    ReLU makes the mean beta * Phi(beta / |gamma|) + |gamma| * phi(beta / |gamma|), with the distribution function Phi
    and the density phi of a standard normal. Unlike `BatchNormGamma`, it sees that a channel with a large gamma and a
    far negative beta is nearly always off. Every group needs a gamma; leave others out with `exclude`.

    Reference: Oh et al., Batch Normalization Tells You Which Filter is Important, WACV 2022,
    https://arxiv.org/abs/2112.01155

    Raises:
        ValueError: When it scores, if a channel has no gamma.

    Example:

    >>> channels = np.arange(2)
    >>> gamma = MemberView("gamma", lambda: np.array([1.0, -1.0]), "affine", "scale", 0, channels)
    >>> beta = MemberView("beta", lambda: np.array([0.0, -3.0]), "affine", "shift", 0, channels)
    >>> [scores.round(4).tolist() for _, scores in GammaBeta().score(ChannelView("conv", 2, (gamma, beta)))]
    [[0.3989, 0.0004]]
    """

    def score(self, view: ChannelView) -> list[tuple[MemberView, np.ndarray]]:
        """Return the means behind each normalization layer that multiplies the channels."""
        return [(gamma, _mean_of_relu(_beta_of(gamma, view), gamma.rows[:, 0])) for gamma in gammas_of(view, self)]


def _beta_of(gamma: MemberView, view: ChannelView) -> np.ndarray:
    """The beta of the same layer, or zeros where it has none."""
    betas = [each for each in view.members if (each.name, each.layer) == ("beta", gamma.layer)]
    return betas[0].rows[:, 0] if betas else np.zeros(len(gamma.channels))


def _mean_of_relu(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    deviation = np.maximum(np.abs(deviation), np.finfo(float).tiny)
    ratio = np.clip(mean / deviation, -40, 40)  # further out, a normal distribution is on one side of zero
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in ratio])
    return np.maximum(mean * below + deviation * np.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi), 0.0)
