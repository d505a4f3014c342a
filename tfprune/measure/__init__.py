"""Measurements, as tables: how good, how fast, how large, how dense."""

from tfprune.measure.benchmarking import BenchmarkReport, FileTiming, benchmark
from tfprune.measure.comparing import compare
from tfprune.measure.comparison import ComparedModel, Comparison, Latency
from tfprune.measure.density import DensityReport, KernelDensity, layerwise_density
from tfprune.measure.group_sensitivity import sensitivity
from tfprune.measure.precision_choice import LayerPrecision, PrecisionChoice, choose_precisions
from tfprune.measure.rounding_errors import QuantizationErrors, RoundingError, quantization_errors
from tfprune.measure.sensitivity_report import Sensitivity, SensitivityRow

__all__ = [
    "BenchmarkReport",
    "ComparedModel",
    "Comparison",
    "DensityReport",
    "FileTiming",
    "KernelDensity",
    "Latency",
    "LayerPrecision",
    "PrecisionChoice",
    "QuantizationErrors",
    "RoundingError",
    "Sensitivity",
    "SensitivityRow",
    "benchmark",
    "choose_precisions",
    "compare",
    "layerwise_density",
    "quantization_errors",
    "sensitivity",
]
