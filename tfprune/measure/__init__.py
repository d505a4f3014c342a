"""Measurements, as tables: how good, how fast, how large, how dense."""

from tfprune.measure.benchmarking import BenchmarkReport, FileTiming, benchmark
from tfprune.measure.comparing import compare
from tfprune.measure.comparison import ComparedModel, Comparison, Latency
from tfprune.measure.density import DensityReport, KernelDensity, layerwise_density

__all__ = [
    "BenchmarkReport",
    "ComparedModel",
    "Comparison",
    "DensityReport",
    "FileTiming",
    "KernelDensity",
    "Latency",
    "benchmark",
    "compare",
    "layerwise_density",
]
