"""Callbacks for `model.fit`."""

from tfprune.callbacks.fpgm import FPGM
from tfprune.callbacks.granet import GraNet
from tfprune.callbacks.magnitude_pruning import MagnitudePruning
from tfprune.callbacks.rigl import RigL
from tfprune.callbacks.set import SET
from tfprune.callbacks.soft_filter_pruning import SoftFilterPruning
from tfprune.callbacks.static_sparsity import StaticSparsity

__all__ = ["FPGM", "SET", "GraNet", "MagnitudePruning", "RigL", "SoftFilterPruning", "StaticSparsity"]
