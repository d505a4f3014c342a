"""How important channels and weights are: from views to scores, where higher means keep."""

from tfprune.criteria.activations import APoZ, Fluctuation, MeanActivation
from tfprune.criteria.base import (
    AnyChannelCriterion,
    ChannelCriterion,
    ChannelScores,
    Criterion,
    KernelFunction,
    WeightCriterion,
    as_channel_criterion,
    as_weight_criterion,
)
from tfprune.criteria.batch_norm_gamma import BatchNormGamma
from tfprune.criteria.blocks import BlockCriterion, BlockInfluence, BlockView, LossChange
from tfprune.criteria.gamma_beta import GammaBeta
from tfprune.criteria.geometric_median import geometric_median_distance
from tfprune.criteria.grasp import GraSP
from tfprune.criteria.group_fisher import GroupFisher
from tfprune.criteria.group_norm import GroupNorm
from tfprune.criteria.lamp import LAMP
from tfprune.criteria.magnitude import Magnitude
from tfprune.criteria.norms import Norm, l1_norm, l2_norm
from tfprune.criteria.optimal_brain_damage import OptimalBrainDamage
from tfprune.criteria.random import Random
from tfprune.criteria.random_weights import RandomWeights
from tfprune.criteria.second_order import LabelFreeHessian, SecondOrderStructuredPruning
from tfprune.criteria.snip import SNIP
from tfprune.criteria.sparse_gpt import SparseGPT
from tfprune.criteria.synflow import SynFlow
from tfprune.criteria.taylor import Taylor
from tfprune.criteria.views import ChannelView, MemberView, WeightView
from tfprune.criteria.wanda import Wanda

__all__ = [
    "LAMP",
    "SNIP",
    "APoZ",
    "AnyChannelCriterion",
    "BatchNormGamma",
    "BlockCriterion",
    "BlockInfluence",
    "BlockView",
    "ChannelCriterion",
    "ChannelScores",
    "ChannelView",
    "Criterion",
    "Fluctuation",
    "GammaBeta",
    "GraSP",
    "GroupFisher",
    "GroupNorm",
    "KernelFunction",
    "LabelFreeHessian",
    "LossChange",
    "Magnitude",
    "MeanActivation",
    "MemberView",
    "Norm",
    "OptimalBrainDamage",
    "Random",
    "RandomWeights",
    "SecondOrderStructuredPruning",
    "SparseGPT",
    "SynFlow",
    "Taylor",
    "Wanda",
    "WeightCriterion",
    "WeightView",
    "as_channel_criterion",
    "as_weight_criterion",
    "geometric_median_distance",
    "l1_norm",
    "l2_norm",
]
