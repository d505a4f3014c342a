"""Callbacks for `model.fit`."""

from tfprune.callbacks.filters import (
    FPGM,
    FilterPruning,
    SoftFilterPruning,
    Stage,
)
from tfprune.callbacks.monitors import (
    FreezeBatchNormalization,
    LayerwiseDensity,
    MaskImages,
)
from tfprune.callbacks.penalties import (
    GammaRegularization,
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    MorphNet,
    NetworkSlimming,
    SparseStructureSelection,
    SparsityRegularization,
)
from tfprune.callbacks.weights import (
    SET,
    GraNet,
    MagnitudePruning,
    RigL,
    SparseTraining,
    StaticSparsity,
)

__all__ = [
    "FPGM",
    "SET",
    "FilterPruning",
    "FreezeBatchNormalization",
    "GammaRegularization",
    "GraNet",
    "GroupLasso",
    "GroupNormRegularization",
    "GrowingRegularization",
    "LayerwiseDensity",
    "MagnitudePruning",
    "MaskImages",
    "MorphNet",
    "NetworkSlimming",
    "RigL",
    "SoftFilterPruning",
    "SparseStructureSelection",
    "SparseTraining",
    "SparsityRegularization",
    "Stage",
    "StaticSparsity",
]
