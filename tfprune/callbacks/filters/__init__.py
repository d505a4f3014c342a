"""Callbacks that zero whole filters, for `shrink` to remove."""

from tfprune.callbacks.filters.base import FilterPruning
from tfprune.callbacks.filters.fpgm import FPGM
from tfprune.callbacks.filters.soft_filter_pruning import SoftFilterPruning
from tfprune.callbacks.filters.stages import Stage

__all__ = [
    "FPGM",
    "FilterPruning",
    "SoftFilterPruning",
    "Stage",
]
