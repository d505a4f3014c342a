"""Masks: which weights live, as the weights themselves carry it, and how to set it."""

from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks, living_weights, record_masks, recorded_mask

__all__ = ["apply_masks", "channel_masks", "living_weights", "record_masks", "recorded_mask"]
