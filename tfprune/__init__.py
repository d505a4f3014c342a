"""Prune Keras 3 models during `fit`, shrink them, and ship a checked `.tflite`."""

from tfprune import callbacks
from tfprune.graph import channel_groups
from tfprune.report.profile import profile
from tfprune.shrink import shrink

__version__ = "0.1.0"

__all__ = ["callbacks", "channel_groups", "profile", "shrink"]
