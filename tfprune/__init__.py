"""Prune Keras 3 models during `fit`, shrink them, and ship a checked `.tflite`."""

from tfprune import callbacks, layers
from tfprune.compression import CompressOptions, compress
from tfprune.export import ExportMismatchError, ExportOptions, ImageMetadata, export
from tfprune.graph import channel_groups
from tfprune.html_report import write_report
from tfprune.prune_channels import Budget, prune_channels
from tfprune.quantize import quantize_aware, strip
from tfprune.recalibration import recalibrate
from tfprune.report import benchmark, compare, layerwise_density, profile
from tfprune.shrink import shrink
from tfprune.widen import widen

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "CompressOptions",
    "ExportMismatchError",
    "ExportOptions",
    "ImageMetadata",
    "benchmark",
    "callbacks",
    "channel_groups",
    "compare",
    "compress",
    "export",
    "layers",
    "layerwise_density",
    "profile",
    "prune_channels",
    "quantize_aware",
    "recalibrate",
    "shrink",
    "strip",
    "widen",
    "write_report",
]
