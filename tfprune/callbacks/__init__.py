"""Callbacks for `model.fit`."""

from tfprune.callbacks.fpgm import FPGM
from tfprune.callbacks.soft_filter_pruning import SoftFilterPruning

__all__ = ["FPGM", "SoftFilterPruning"]
