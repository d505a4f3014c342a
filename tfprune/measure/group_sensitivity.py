"""How much a model minds when a single channel group or kernel is pruned."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from tfprune.common.checks import check_fraction
from tfprune.criteria import (
    AnyChannelCriterion,
    WeightCriterion,
    as_channel_criterion,
    l2_norm,
)
from tfprune.data import Reader, inputs_of
from tfprune.data.fingerprints import digest, model_fingerprint
from tfprune.graph import Analysis, analyse
from tfprune.graph.groups import named
from tfprune.measure.partial_results import PartialResults
from tfprune.measure.prunable_parts import parts_of_groups, parts_of_kernels
from tfprune.measure.pruned_scores import AnyMetric, Bench
from tfprune.measure.sensitivity_report import Sensitivity, SensitivityRow
from tfprune.statistics.gathering import known_statistics

_MAX_SAMPLES = 1024
"""So many samples say enough; all of them are kept in memory."""


_WHOLE = "(nothing pruned)"


def sensitivity(
    model: keras.Model,
    data: Any,
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    *,
    criterion: AnyChannelCriterion | WeightCriterion = l2_norm,
    metric: AnyMetric = None,
    storage: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Sensitivity:
    """Measure how much a model minds when one of its channel groups is pruned, for all of them at several ratios.

    Each group is pruned alone, BatchNormalization statistics are measured anew on the data, and the score is taken;
    then the group comes back. That happens on a copy in which channels are set to zero, which gives what removing them
    gives: the model itself is not changed, and nothing is compiled twice. It takes two passes over the data for each
    group and ratio, one without BatchNormalization.

    With a criterion of single weights, the kernels of the model are pruned one by one instead of its groups.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, https://arxiv.org/abs/1608.08710, section
    3.2; Zhang et al., Are All Layers Created Equal?, 2019, https://arxiv.org/abs/1902.01996

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        data: Some hundreds of samples, in any form that `fit` takes, with or without labels; of more than 1,024, so
            many are used.
        ratios: The fractions to prune, each in (0, 1).
        criterion: Which channels of a group go first, as in `tfprune.prune_channels`, which takes the same one then; or
            a `tfprune.criteria.WeightCriterion`, such as `Magnitude()`, for single weights.
        metric: What the score is. None for the loss that the model was compiled with if the data has labels, else
            `"divergence"` from the model's own answers: the Kullback-Leibler divergence of probabilities, the mean
            squared error of other numbers. Otherwise `"loss"`, `"accuracy"`, a `keras.metrics.Metric`, or a function of
            `y_true` and `y_pred` that returns a number, for a model with one output.
        storage: A folder or a path that ends in `.json`, where results are kept as they come. A call with the same
            model, data and settings goes on from there.
        progress: Whether to show on stderr, if it is a terminal, how far the work is.

    Returns:
        One row per group. Print it for a table; `plot(path)` draws it, and `prune_channels` takes `widths(max_harm)`.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If an argument is out of range, nothing can be pruned, the metric needs labels, the data does not
            fit, or `storage` holds results of another model or other settings.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(3)])
    >>> found = sensitivity(model, np.eye(4), ratios=[0.5], progress=False)
    >>> found.metric, found.rows[0].name, found.rows[0].kept, found.left_out
    ('divergence', 'hidden', (4,), {'dense...': 'model output'})
    >>> found.widths(max_harm=100.0)
    Widths({'hidden': 4})
    """
    wanted = _checked(ratios)
    analysis = analyse(model)
    batches = list(Reader(data, inputs_of(model), max_samples=_MAX_SAMPLES))
    of_weights = isinstance(criterion, WeightCriterion)
    if isinstance(criterion, WeightCriterion):
        parts = parts_of_kernels(model, criterion, batches)
    else:
        parts = parts_of_groups(model, analysis, as_channel_criterion(criterion, known_statistics()), batches)
    if not parts:
        raise ValueError(f"Nothing of {model.name!r} can be pruned.\n{analysis.groups}")
    bench = Bench(model, analysis, batches, metric)
    settings = {
        "model": model_fingerprint(model),
        "data": digest(np.asarray(array) for array in keras.tree.flatten(batches) if array is not None),
        "criterion": _written(criterion),
        "ratios": wanted,
        "metric": bench.metric,
    }
    kept = PartialResults(storage, "sensitivity.json", settings)
    if _WHOLE not in kept.found:
        kept.add(_WHOLE, [bench.score(), bench.score_without({})])
    console = Console(stderr=True)
    shown = progress and console.is_terminal
    for part in track(parts, "Pruning one by one", console=console, transient=True, disable=not shown):
        if part.name not in kept.found:
            pruned = [part.prune(ratio) for ratio in wanted]
            kept.add(part.name, [[size for size, _ in pruned], [bench.score_without(masks) for _, masks in pruned]])
    dense, baseline = kept.found[_WHOLE]
    return Sensitivity(
        model=model.name,
        parts="weights" if of_weights else "channels",
        metric=bench.metric,
        better=bench.better,
        ratios=tuple(wanted),
        dense=dense,
        baseline=baseline,
        num_samples=sum(batch.num_samples for batch in batches),
        rows=tuple(SensitivityRow(part.name, part.size, *map(tuple, kept.found[part.name])) for part in parts),
        left_out={} if of_weights else _frozen(analysis),
    )


def _frozen(analysis: Analysis) -> dict[str, str]:
    """Why groups are not pruned, and layers that are in none."""
    frozen = {name: "; ".join(group.frozen) for name, group in named(analysis.groups).items() if group.frozen}
    return {**frozen, **analysis.groups.unread}


def _checked(ratios: Sequence[float]) -> list[float]:
    found = sorted({float(check_fraction("ratios", ratio)) for ratio in ratios} - {0.0})
    if not found:
        raise ValueError(f"ratios must hold fractions to prune, such as (0.25, 0.5, 0.75). Received: {ratios!r}.")
    return found


def _written(criterion: Any) -> str:
    """A criterion in words that are the same in every process."""
    words = repr(criterion)
    return getattr(criterion, "__name__", type(criterion).__name__) if " at 0x" in words else words
