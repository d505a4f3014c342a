"""The criterion that any other has to beat."""

import zlib

import numpy as np

from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView


class Random(ChannelCriterion):
    """Score channels at random: the floor that any other criterion has to beat.

    Args:
        seed: Of the scores, which are the same whenever a group of that name and size is scored.

    Example:

    >>> Random(seed=1).score(ChannelView("hidden", 3, ())).round(2)
    array([0.57, 0.92, 0.08])
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, view: ChannelView) -> np.ndarray:
        """Return numbers from [0, 1), shape (channels,)."""
        return np.random.default_rng([self.seed, zlib.crc32(view.name.encode())]).random(view.size)
