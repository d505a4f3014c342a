"""Callbacks that watch, log or freeze, and prune nothing."""

from tfprune.callbacks.monitors.early_bird import EarlyBird
from tfprune.callbacks.monitors.freeze_batch_normalization import FreezeBatchNormalization
from tfprune.callbacks.monitors.layer_density import LayerwiseDensity
from tfprune.callbacks.monitors.mask_images import MaskImages

__all__ = [
    "EarlyBird",
    "FreezeBatchNormalization",
    "LayerwiseDensity",
    "MaskImages",
]
