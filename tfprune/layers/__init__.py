"""Layers that training needs and the finished model does not: `tfprune.shrink` takes them out again."""

from tfprune.layers.insertion import with_scaling_factors
from tfprune.layers.scaling_factor import ScalingFactor, scaling_factors

__all__ = ["ScalingFactor", "scaling_factors", "with_scaling_factors"]
