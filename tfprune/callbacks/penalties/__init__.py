"""Callbacks that push whole structures to zero while the network trains."""

from tfprune.callbacks.penalties.base import SparsityRegularization
from tfprune.callbacks.penalties.gammas import GammaRegularization
from tfprune.callbacks.penalties.group_lasso import GroupLasso
from tfprune.callbacks.penalties.group_norm import GroupNormRegularization, GrowingRegularization
from tfprune.callbacks.penalties.morphnet import MorphNet
from tfprune.callbacks.penalties.network_slimming import NetworkSlimming
from tfprune.callbacks.penalties.structure_selection import SparseStructureSelection

__all__ = [
    "GammaRegularization",
    "GroupLasso",
    "GroupNormRegularization",
    "GrowingRegularization",
    "MorphNet",
    "NetworkSlimming",
    "SparseStructureSelection",
    "SparsityRegularization",
]
