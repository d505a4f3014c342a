"""Iterative pruning: rounds of training and pruning, with weights, optimizer or schedule that come back."""

from tfprune.drivers.iterating.iterate_options import IterateOptions
from tfprune.drivers.iterating.iteration_report import Iteration, IterationReport, RoundReport
from tfprune.drivers.iterating.iterator import iterate
from tfprune.drivers.iterating.policies import (
    FineTune,
    InitialWeights,
    InitialWeightsAtEnd,
    Policy,
    Reinitialize,
    Rewind,
    RewindLearningRate,
)
from tfprune.drivers.iterating.rounds import Round
from tfprune.drivers.iterating.stop import Stop
from tfprune.drivers.iterating.ticket import Ticket
from tfprune.drivers.iterating.what import PruneChannels, PruneWeights

__all__ = [
    "FineTune",
    "InitialWeights",
    "InitialWeightsAtEnd",
    "IterateOptions",
    "Iteration",
    "IterationReport",
    "Policy",
    "PruneChannels",
    "PruneWeights",
    "Reinitialize",
    "Rewind",
    "RewindLearningRate",
    "Round",
    "RoundReport",
    "Stop",
    "Ticket",
    "iterate",
]
