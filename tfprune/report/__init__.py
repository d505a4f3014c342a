"""Measurements, as tables: how fast, how large, how dense."""

from tfprune.report.benchmark import BenchmarkReport, FileTiming, benchmark
from tfprune.report.density import DensityReport, KernelDensity, layerwise_density
from tfprune.report.profile import LayerProfile, Profile, profile

__all__ = [
    "BenchmarkReport",
    "DensityReport",
    "FileTiming",
    "KernelDensity",
    "LayerProfile",
    "Profile",
    "benchmark",
    "layerwise_density",
    "profile",
]
