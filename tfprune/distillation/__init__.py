"""Training by a teacher: a student learns what another model answers, with labels or without."""

from tfprune.distillation.averages import MovingAverage
from tfprune.distillation.distilled import Distilled
from tfprune.distillation.distilling import distill

__all__ = ["Distilled", "MovingAverage", "distill"]
