"""How important channels and weights are: from views to scores, where higher means keep."""

from tfprune.criteria.base import (
    AnyChannelCriterion,
    ChannelCriterion,
    ChannelScores,
    Criterion,
    KernelFunction,
    WeightCriterion,
    as_channel_criterion,
)
from tfprune.criteria.batch_norm_gamma import BatchNormGamma
from tfprune.criteria.geometric_median import geometric_median_distance
from tfprune.criteria.group_fisher import GroupFisher
from tfprune.criteria.group_norm import GroupNorm
from tfprune.criteria.norms import l1_norm, l2_norm
from tfprune.criteria.views import ChannelView, MemberView, WeightView

__all__ = [
    "AnyChannelCriterion",
    "BatchNormGamma",
    "ChannelCriterion",
    "ChannelScores",
    "ChannelView",
    "Criterion",
    "GroupFisher",
    "GroupNorm",
    "KernelFunction",
    "MemberView",
    "WeightCriterion",
    "WeightView",
    "as_channel_criterion",
    "geometric_median_distance",
    "l1_norm",
    "l2_norm",
]
