"""Callbacks that watch, log, keep or freeze, and prune nothing."""

from tfprune.callbacks.monitors.collect_tickets import CollectTickets
from tfprune.callbacks.monitors.early_bird import EarlyBird
from tfprune.callbacks.monitors.freeze_batch_normalization import FreezeBatchNormalization
from tfprune.callbacks.monitors.layer_density import LayerwiseDensity
from tfprune.callbacks.monitors.mask_images import MaskImages

__all__ = [
    "CollectTickets",
    "EarlyBird",
    "FreezeBatchNormalization",
    "LayerwiseDensity",
    "MaskImages",
]
