"""How important each channel is: pure functions from arrays to scores, where higher means keep."""

from collections.abc import Callable

import numpy as np

from tfprune.criteria.geometric_median import geometric_median_distance
from tfprune.criteria.norms import l1_norm, l2_norm

ChannelCriterion = Callable[[np.ndarray, int], np.ndarray]
"""A function from (weights, axis) to one score per position on that axis."""

__all__ = ["ChannelCriterion", "geometric_median_distance", "l1_norm", "l2_norm"]
