"""Measurements, as tables: how good, how fast, how large, how dense."""

from tfprune.report.benchmark import BenchmarkReport, FileTiming, benchmark
from tfprune.report.compare import compare
from tfprune.report.comparison import ComparedModel, Comparison, Latency
from tfprune.report.density import DensityReport, KernelDensity, layerwise_density
from tfprune.report.profile import LayerProfile, Profile, profile

__all__ = [
    "BenchmarkReport",
    "ComparedModel",
    "Comparison",
    "DensityReport",
    "FileTiming",
    "KernelDensity",
    "Latency",
    "LayerProfile",
    "Profile",
    "benchmark",
    "compare",
    "layerwise_density",
    "profile",
]
