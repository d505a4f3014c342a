"""The floor of every comparison of weights: chance."""

import zlib

import numpy as np

from tfprune.criteria.base import WeightCriterion
from tfprune.criteria.views import WeightView


class RandomWeights(WeightCriterion):
    """Score each weight by a random number, which depends on the seed and on the name of the kernel only.

    What another criterion is worth shows against it: with `erdos_renyi_kernel` or `smart_ratio` as the distribution it
    is a strong baseline before training.

    Reference: Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022,
    https://arxiv.org/abs/2202.02643

    Args:
        seed: Of the numbers.

    Example:

    >>> view = WeightView("kernel", lambda: np.zeros((2, 3)))
    >>> bool((RandomWeights(1).score(view) == RandomWeights(1).score(view)).all())
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, view: WeightView) -> np.ndarray:
        """Return uniform random numbers in [0, 1)."""
        return np.random.default_rng([self.seed, zlib.crc32(view.name.encode())]).random(view.weights.shape)
