"""A Keras model as a `.tflite` file that was checked against it."""

from tfprune.export.exporter import export
from tfprune.export.report import ExportReport
from tfprune.export.verify import ExportMismatchError, OutputError

__all__ = ["ExportMismatchError", "ExportReport", "OutputError", "export"]
