"""From a trained model to a smaller, checked int8 `.tflite` in one call."""

from tfprune.compression.compressor import compress
from tfprune.compression.options import CompressOptions
from tfprune.compression.report import BudgetLine, CompressionReport, PhaseReport

__all__ = ["BudgetLine", "CompressOptions", "CompressionReport", "PhaseReport", "compress"]
