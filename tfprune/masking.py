"""Masks as the weights carry them."""

from tfprune.training.masks import apply_masks, recorded_mask

__all__ = ["apply_masks", "recorded_mask"]
