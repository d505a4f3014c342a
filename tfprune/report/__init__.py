"""Measurements, as tables: how fast, how large."""

from tfprune.report.benchmark import BenchmarkReport, FileTiming, benchmark
from tfprune.report.profile import LayerProfile, Profile, profile

__all__ = ["BenchmarkReport", "FileTiming", "LayerProfile", "Profile", "benchmark", "profile"]
