"""One-shot pruning of single weights: measure, rank, set to zero; in place, and all or nothing."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count, check_fraction
from tfprune.common.temporarily import restored
from tfprune.criteria import Magnitude, SparseGPT, WeightCriterion, as_weight_criterion
from tfprune.distributions import Distribution
from tfprune.granularity import Granularity, Unstructured, check_granularity
from tfprune.graph.exclude import Overrides
from tfprune.parts.lazy_arrays import LazyArrays
from tfprune.parts.weight_choice import Choice, distribution_for, scores_of
from tfprune.training.masks import Masks, record_masks, recorded_mask
from tfprune.weight_pruning.layerwise import prune_layer_by_layer
from tfprune.weight_pruning.measuring import Measure, measure_for

WHO = "prune_weights"


def prune_weights(
    model: keras.Model,
    sparsity: float | Overrides,
    criterion: WeightCriterion = Magnitude(),  # noqa: B008 (pure)
    *,
    data: Any = None,
    rounds: int | None = None,
    granularity: Granularity | None = None,
    distribution: Distribution | None = None,
) -> None:
    """Set the least important single weights of a model to zero, in place, before training or after it.

    The masks are those of the callbacks: a pruned weight is -0.0, whatever saves weights saves them, and
    `MagnitudePruning(0.0)` holds them in a later `fit`. Without it pruned weights grow back. What was pruned before
    stays pruned, and counts. Whatever is raised leaves the model unchanged.

    Args:
        model: A built Keras model. Depthwise kernels stay dense, and so do layers that are not trained.
        sparsity: The fraction of weights to prune, in [0, 1). For layers of their own sparsity, a dict from layers to
            fractions, or a function from a layer to one or None: each is pruned apart, and the others stay dense.
        criterion: What makes a weight important: one of `tfprune.criteria` for single weights.
        data: For a criterion that needs it: inputs, with labels if its loss wants them, in any form that `fit` takes.
            At most 1,024 samples are used. Or `Statistics` that were gathered before.
        rounds: In how many rounds weights go. Each prunes the same fraction of what is left, and scores are measured
            anew. By default as many as the criterion's paper has: 100 for `SynFlow`, else one.
        granularity: `Unstructured()`, `NofM(2, 4)` or `Block((4, 1))`.
        distribution: How sparsity is split over layers: `uniform`, `global_`, `erdos_renyi_kernel`, `smart_ratio` or
            another. By default `global_` for a criterion that compares weights of all layers, else `uniform`.

    Raises:
        TypeError: If an argument has another type, such as a criterion of channels.
        ValueError: If the model has nothing to prune or is pruned further already, an argument is out of range, data,
            labels or a loss are missing, or weights or scores are not finite.

    Example:

    >>> from tfprune.criteria import SNIP
    >>> from tfprune.distributions import uniform
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> prune_weights(model, 0.75, SNIP(), data=(np.ones((4, 8)), np.ones((4, 2))), distribution=uniform)
    >>> [int((layer.kernel.numpy() == 0).sum()) for layer in model.layers]
    [96, 24]
    """
    criterion = as_weight_criterion(criterion, WHO)
    given = granularity or Unstructured()
    together: Granularity = check_granularity(given, Granularity, WHO)  # type: ignore[type-abstract]
    count = criterion.rounds if rounds is None else check_count("rounds", rounds)
    choice, total = _chosen(model, sparsity, together, distribution)
    _check_weights(choice, total)
    split = distribution or distribution_for(criterion)
    if isinstance(criterion, SparseGPT):
        if count > 1:
            raise ValueError(
                f"SparseGPT prunes in one round, in which it measures before each layer. Received: {rounds}."
            )
        with restored([kernel.variable for kernel in choice.kernels.values()], only_if_raised=True):
            prune_layer_by_layer(model, choice, total, criterion, split, data)
        return
    measure = measure_for(criterion, model, choice.kernels, data, count)
    pruning = WeightPruning(model, choice, total, criterion, split, measure)
    with restored([kernel.variable for kernel in choice.kernels.values()], only_if_raised=True):
        for number in range(1, count + 1):
            pruning.prune(number / count)


@dataclass(frozen=True)
class WeightPruning:
    """What is pruned, by what, and how far.

    Attributes:
        model: The model.
        choice: Its kernels.
        sparsity: The sparsity of those that have none of their own.
        criterion: Which weights go first.
        distribution: How sparsity is split over layers.
        measure: Gathers what the criterion needs.
    """

    model: keras.Model
    choice: Choice
    sparsity: float
    criterion: WeightCriterion
    distribution: Distribution
    measure: Measure

    def scores(self) -> LazyArrays:
        """Return the scores of the weights as they are now, by kernel name; -inf for what is pruned."""
        weights = LazyArrays(self.choice.kernels, lambda name: self.choice.kernels[name].variable.numpy())
        return scores_of(self.criterion, weights, self._recorded(), self.measure())

    def prune(self, progress: float) -> None:
        """Prune as far as is due when a part of the rounds is done: each takes the same fraction of what is left."""
        recorded = self._recorded()
        own = {name: _due(value, progress) for name, value in self.choice.own.items()}
        choice = dataclasses.replace(self.choice, own=own)
        sparsity = _due(self.sparsity, progress)
        masks = choice.masks(self.scores(), sparsity, 1.0, self.distribution, self.criterion.scope)
        paths = {name: kernel.path for name, kernel in choice.kernels.items()}
        record_masks(self.model, {paths[name]: mask & recorded[name] for name, mask in masks.items()})

    def _recorded(self) -> Masks:
        return {name: recorded_mask(kernel.variable) for name, kernel in self.choice.kernels.items()}


def _due(sparsity: float, progress: float) -> float:
    return sparsity if progress == 1 else 1 - (1 - sparsity) ** progress


def _chosen(
    model: keras.Model, sparsity: Any, granularity: Granularity, distribution: Distribution | None
) -> tuple[Choice, float]:
    """What is pruned, and the sparsity of what has none of its own."""
    if not (isinstance(sparsity, Mapping) or callable(sparsity)):
        total = check_fraction("sparsity", sparsity)
        granularity.check_sparsity(total)
        choice = Choice.of(model, granularity, None, None)
    else:
        if distribution is not None:
            raise ValueError(
                "sparsity says how much of each layer goes, and so does distribution. Give one fraction for all "
                "layers, or leave distribution out."
            )
        choice, total = Choice.of(model, granularity, None, sparsity, "sparsity"), 0.0
        choice = dataclasses.replace(choice, kernels={name: choice.kernels[name] for name in choice.own})
    if not choice.kernels:
        raise ValueError(
            f"prune_weights finds no weights to prune in {model.name!r}: it has no trainable layer with a kernel. "
            "Depthwise kernels are pruned only if `sparsity` names their layer."
        )
    return choice, total


def _check_weights(choice: Choice, total: float) -> None:
    size = living = wanted = 0.0
    for name, kernel in choice.kernels.items():
        if not np.isfinite(kernel.variable.numpy()).all():
            raise ValueError(f"{name!r} has weights that are not finite, so that they cannot be ranked.")
        mask = recorded_mask(kernel.variable)
        size += mask.size
        living += mask.sum()
        wanted += mask.size * (1 - choice.own.get(name, total))
    if living < wanted - len(choice.kernels):
        raise ValueError(
            f"{1 - living / size:.4g} of the weights are pruned already, more than the {1 - wanted / size:.4g} that "
            "`sparsity` asks for, and they do not come back. Ask for more, or begin with a dense model."
        )
