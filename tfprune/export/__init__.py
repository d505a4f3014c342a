"""A Keras model as a `.tflite` file that was checked against it."""

from tfprune.export.exporter import export
from tfprune.export.metadata import ImageMetadata
from tfprune.export.options import ExportOptions
from tfprune.export.reasons import FloatOperator
from tfprune.export.report import ExportReport
from tfprune.export.verify import ExportMismatchError, OutputError

__all__ = [
    "ExportMismatchError",
    "ExportOptions",
    "ExportReport",
    "FloatOperator",
    "ImageMetadata",
    "OutputError",
    "export",
]
