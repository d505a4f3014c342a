"""Gradual magnitude pruning."""

from typing import Any

from tfprune.callbacks.weights.base import SparseTraining, without_data
from tfprune.criteria import Magnitude, WeightCriterion
from tfprune.distributions import Distribution
from tfprune.granularity import Granularity
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.parts.lazy_arrays import Arrays
from tfprune.parts.weight_choice import distribution_for
from tfprune.schedules import Polynomial, ScheduleLike, as_schedule


class MagnitudePruning(SparseTraining):
    """Prune the smallest weights step by step, from dense to a final sparsity, and train the rest.

    By default sparsity follows the cubic schedule of the paper, in every layer alike, from the first step until three
    quarters of the training; the last quarter lets the network recover. It works from scratch and on a trained model.
    Weights that are pruned stay pruned.

    Reference: Zhu and Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression,
    ICLR workshop 2018, https://arxiv.org/abs/1710.01878

    Args:
        sparsity: The final sparsity, in [0, 1); or a schedule such as
            `Polynomial(0.9, initial=0.5, begin=1000, end=5000, frequency=100)`, or a function of the step. It may not
            fall, since pruned weights do not come back.
        criterion: What takes the place of the magnitude: a criterion of single weights that needs no data, such as
            `LAMP()`.
        granularity: `Unstructured()`, `NofM(2, 4)` or `Block((4, 1))`.
        distribution: `uniform` (every layer alike), `global_` (the lowest weights of the whole network) or another. By
            default `uniform`, and `global_` for a criterion that compares weights of all layers, as LAMP does.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: Final sparsities of their own for some layers, also depthwise ones, which are dense otherwise: a
            dict from layer to sparsity, or a function that returns one or None. They count apart from all others.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune or the schedule
            does not fit into the training or falls.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=4, verbose=0, callbacks=[MagnitudePruning(0.75)])
    >>> history.history["sparsity"][-1]
    0.75
    """

    default_end = 0.75
    rewires = False
    scheduled = "sparsity"
    rises = True

    def __init__(
        self,
        sparsity: ScheduleLike,
        *,
        criterion: WeightCriterion = Magnitude(),  # noqa: B008 (pure)
        granularity: Granularity | None = None,
        distribution: Distribution | None = None,
        exclude: Exclude = None,
        overrides: Overrides = None,
    ) -> None:
        schedule = as_schedule(self.scheduled, sparsity, Polynomial)
        self.ranked_by = without_data(criterion, type(self).__name__)
        distribution = distribution or distribution_for(criterion)
        super().__init__(schedule, distribution, granularity, exclude, overrides, seed=0)
        if isinstance(schedule, Polynomial):
            self.granularity.check_sparsity(schedule.final)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the weights, and check the sparsities that they are to have."""
        super().on_train_begin(logs)
        self._final = self._active.final
        if self._final is not None:
            self.granularity.check_sparsity(self._final)

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Prune what is due at the start, and keep pruned what was."""
        return self._smaller(self._weights(), recorded, time) if self.due(time) else recorded

    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Prune more of the smallest weights."""
        return self._smaller(weights, masks, time), {}

    def _smaller(self, weights: Arrays, masks: Arrays, time: int) -> Arrays:
        return self.prune_smallest(weights, masks, self.value(time), self._final)
