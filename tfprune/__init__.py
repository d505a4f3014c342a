"""Prune Keras 3 models during `fit`, shrink them, and ship a checked `.tflite`."""

from tfprune import callbacks, layers
from tfprune.export import ExportMismatchError, export
from tfprune.graph import channel_groups
from tfprune.prune_channels import Budget, prune_channels
from tfprune.recalibration import recalibrate
from tfprune.report import benchmark, layerwise_density, profile
from tfprune.shrink import shrink
from tfprune.widen import widen

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "ExportMismatchError",
    "benchmark",
    "callbacks",
    "channel_groups",
    "export",
    "layers",
    "layerwise_density",
    "profile",
    "prune_channels",
    "recalibrate",
    "shrink",
    "widen",
]
