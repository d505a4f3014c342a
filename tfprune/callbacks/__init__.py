"""Callbacks for `model.fit`."""

from tfprune.callbacks.fpgm import FPGM
from tfprune.callbacks.freeze_batch_normalization import FreezeBatchNormalization
from tfprune.callbacks.granet import GraNet
from tfprune.callbacks.group_lasso import GroupLasso
from tfprune.callbacks.group_norm import GroupNormRegularization, GrowingRegularization
from tfprune.callbacks.layerwise_density import LayerwiseDensity
from tfprune.callbacks.magnitude_pruning import MagnitudePruning
from tfprune.callbacks.mask_images import MaskImages
from tfprune.callbacks.morphnet import MorphNet
from tfprune.callbacks.network_slimming import NetworkSlimming
from tfprune.callbacks.rigl import RigL
from tfprune.callbacks.set import SET
from tfprune.callbacks.soft_filter_pruning import SoftFilterPruning
from tfprune.callbacks.sparse_structure_selection import SparseStructureSelection
from tfprune.callbacks.static_sparsity import StaticSparsity

__all__ = [
    "FPGM",
    "SET",
    "FreezeBatchNormalization",
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
    "StaticSparsity",
]
