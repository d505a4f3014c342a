"""From a trained model to a smaller, checked int8 `.tflite` in one call."""

from tfprune.drivers.compression.compress_options import CompressOptions
from tfprune.drivers.compression.compression_report import BudgetLine, CompressionReport, PhaseReport
from tfprune.drivers.compression.compressor import compress

__all__ = ["BudgetLine", "CompressOptions", "CompressionReport", "PhaseReport", "compress"]
