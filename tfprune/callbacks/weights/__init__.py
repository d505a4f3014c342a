"""Callbacks that prune single weights and hold them at zero."""

from tfprune.callbacks.weights.base import SparseTraining
from tfprune.callbacks.weights.dsr import DSR
from tfprune.callbacks.weights.granet import GraNet
from tfprune.callbacks.weights.magnitude_pruning import MagnitudePruning
from tfprune.callbacks.weights.rigl import RigL
from tfprune.callbacks.weights.set import SET
from tfprune.callbacks.weights.static_sparsity import StaticSparsity

__all__ = [
    "DSR",
    "SET",
    "GraNet",
    "MagnitudePruning",
    "RigL",
    "SparseTraining",
    "StaticSparsity",
]
