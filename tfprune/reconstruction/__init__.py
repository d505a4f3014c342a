"""Make up for removed channels without training: least squares from the inputs to the outputs."""

from tfprune.reconstruction.repair import reconstruct
from tfprune.reconstruction.repair_report import ReconstructionReport, RefittedLayer

__all__ = ["ReconstructionReport", "RefittedLayer", "reconstruct"]
