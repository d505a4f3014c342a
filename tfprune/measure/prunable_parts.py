"""What of a model can be pruned alone: a channel group, or a kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.criteria import ChannelCriterion, WeightCriterion
from tfprune.data import Batch
from tfprune.granularity import Channel, prune_lowest
from tfprune.graph import Analysis, ChannelGroup
from tfprune.graph.groups import named
from tfprune.parts.channels import channel_masks, drop_lowest
from tfprune.parts.kernels import Kernel, kernels
from tfprune.parts.lazy_arrays import LazyArrays
from tfprune.parts.ranking import Ranking
from tfprune.parts.weight_choice import scores_of
from tfprune.statistics import Statistics, gather
from tfprune.training.masks import Masks
from tfprune.weight_pruning.measuring import measure_for

Prune = Callable[[float], tuple[int, Masks]]
"""From a ratio to how many channels or weights stay, and to masks by path."""


@dataclass(frozen=True)
class Part:
    """What is pruned alone.

    Attributes:
        name: What it is called.
        size: How many channels or weights there are.
        prune: Says what stays at a ratio.
    """

    name: str
    size: int
    prune: Prune


def parts_of_groups(
    model: keras.Model, analysis: Analysis, criterion: ChannelCriterion, batches: Sequence[Batch]
) -> list[Part]:
    """Return the free channel groups of a model.

    Args:
        model: The model.
        analysis: Its analysis.
        criterion: Says which channels go first.
        batches: The data, for criteria that need it.

    Raises:
        ValueError: If the data lacks what the criterion needs.
    """
    statistics = Statistics(0)
    if criterion.needs:
        loss, temperature = criterion.loss, criterion.temperature
        statistics = gather(model, _tuples(batches), criterion.needs, loss=loss, temperature=temperature)
    free = {name: group for name, group in named(analysis.groups).items() if not group.frozen}
    scores = {name: Ranking().scores(each, criterion, statistics=statistics, name=name) for name, each in free.items()}
    return [Part(name, group.size, _pruned_group(analysis, group, scores[name])) for name, group in free.items()]


def parts_of_kernels(model: keras.Model, criterion: WeightCriterion, batches: Sequence[Batch]) -> list[Part]:
    """Return the kernels of a model.

    Args:
        model: The model.
        criterion: Says which weights go first.
        batches: The data, for criteria that need it.

    Raises:
        ValueError: If the data lacks what the criterion needs.
    """
    known = {kernel.name: kernel for kernel in kernels(model)}
    statistics = measure_for(criterion, model, known, _tuples(batches), rounds=1)()
    weights = LazyArrays(known, lambda name: known[name].variable.numpy())
    living = LazyArrays(known, lambda name: np.ones(known[name].variable.shape, bool))
    scores = scores_of(criterion, weights, living, statistics)
    return [
        Part(name, int(np.prod(kernel.variable.shape)), _pruned_kernel(kernel, scores))
        for name, kernel in known.items()
    ]


def _tuples(batches: Sequence[Batch]) -> list[tuple[Any, ...]]:
    """Data as a user gives it."""
    return [tuple(part for part in batch if part is not None) for batch in batches]


def _pruned_group(analysis: Analysis, group: ChannelGroup, scores: np.ndarray) -> Prune:
    def prune(ratio: float) -> tuple[int, Masks]:
        keep = drop_lowest(scores, Channel().count(group.size, ratio), np.ones(group.size, bool))
        keep = ~np.isin(group.labels, analysis.spare(group.labels[~keep]))  # a part of a split keeps one
        return int(keep.sum()), channel_masks([(group, keep)], ("producer", "affine"))

    return prune


def _pruned_kernel(kernel: Kernel, scores: LazyArrays) -> Prune:
    def prune(ratio: float) -> tuple[int, Masks]:
        found = scores[kernel.name]
        mask = prune_lowest(found, Channel().count(found.size, ratio))
        return int(mask.sum()), {kernel.path: mask}

    return prune
