"""Prune Keras 3 models during `fit`, shrink them, and ship a checked `.tflite`."""

from tfprune import callbacks, files, layers, masking, runtime, tickets  # noqa: F401  (rooms that nothing else loads)
from tfprune.clustering import cluster, cluster_aware
from tfprune.coding import CodedSize, coded_size, pack, unpack
from tfprune.common.moved import keep_old_paths
from tfprune.decomposition import choose_ranks, decompose
from tfprune.distillation import MovingAverage, distill
from tfprune.drivers.compression import CompressOptions, compress
from tfprune.drivers.iterating import (
    FineTune,
    InitialWeights,
    InitialWeightsAtEnd,
    IterateOptions,
    PruneChannels,
    PruneWeights,
    Reinitialize,
    Rewind,
    RewindLearningRate,
    Stop,
    Ticket,
    iterate,
)
from tfprune.drivers.narrowing import fit_narrowing
from tfprune.exporting import ExportMismatchError, ExportOptions, ExportReport, ImageMetadata, LayerPrecisions, export
from tfprune.graph import channel_groups
from tfprune.graph.profiling import profile
from tfprune.html_report import write_report
from tfprune.measure import benchmark, choose_precisions, compare, layerwise_density, quantization_errors, sensitivity
from tfprune.parts.ranking import Ranking
from tfprune.quantization import quantize_aware
from tfprune.reconstruction import ReconstructionReport, reconstruct
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.depth import remove_layers, residual_blocks
from tfprune.shrinking.dropout import adjust_dropout
from tfprune.shrinking.one_shot import choose_widths, prune_channels
from tfprune.shrinking.recalibration import recalibrate
from tfprune.shrinking.removal import shrink
from tfprune.shrinking.rounds import Rounds
from tfprune.shrinking.widening import widen
from tfprune.shrinking.widths import Widths
from tfprune.stripping import strip
from tfprune.weight_pruning.one_shot import prune_weights

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "CodedSize",
    "CompressOptions",
    "ExportMismatchError",
    "ExportOptions",
    "ExportReport",
    "FineTune",
    "ImageMetadata",
    "InitialWeights",
    "InitialWeightsAtEnd",
    "IterateOptions",
    "LayerPrecisions",
    "MovingAverage",
    "PruneChannels",
    "PruneWeights",
    "Ranking",
    "ReconstructionReport",
    "Reinitialize",
    "Rewind",
    "RewindLearningRate",
    "Rounds",
    "Stop",
    "Ticket",
    "Widths",
    "adjust_dropout",
    "benchmark",
    "callbacks",
    "channel_groups",
    "choose_precisions",
    "choose_ranks",
    "choose_widths",
    "cluster",
    "cluster_aware",
    "coded_size",
    "compare",
    "compress",
    "decompose",
    "distill",
    "export",
    "fit_narrowing",
    "iterate",
    "layers",
    "layerwise_density",
    "pack",
    "profile",
    "prune_channels",
    "prune_weights",
    "quantization_errors",
    "quantize_aware",
    "recalibrate",
    "reconstruct",
    "remove_layers",
    "residual_blocks",
    "sensitivity",
    "shrink",
    "strip",
    "unpack",
    "widen",
    "write_report",
]

keep_old_paths()
