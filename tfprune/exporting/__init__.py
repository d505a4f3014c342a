"""A Keras model as a `.tflite` file that was checked against it."""

from tfprune.exporting.export_options import ExportOptions
from tfprune.exporting.export_report import ExportReport
from tfprune.exporting.exporter import export
from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.metadata import ImageMetadata
from tfprune.exporting.reasons import FloatOperator
from tfprune.exporting.verify import ExportMismatchError, OutputError

__all__ = [
    "ExportMismatchError",
    "ExportOptions",
    "ExportReport",
    "FloatOperator",
    "ImageMetadata",
    "LayerPrecisions",
    "OutputError",
    "export",
]
