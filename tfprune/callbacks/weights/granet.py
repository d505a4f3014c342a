"""GraNet: gradual pruning with zero-cost neuroregeneration."""

import math
from typing import Any

from tfprune.callbacks.weights.base import SparseTraining, without_data
from tfprune.callbacks.weights.rigl import grow_by_gradient
from tfprune.criteria import Magnitude, WeightCriterion
from tfprune.distributions import erdos_renyi_kernel, global_
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.parts.lazy_arrays import Arrays
from tfprune.schedules import Cosine, Polynomial, Schedule, ScheduleLike, as_schedule


class GraNet(SparseTraining):
    """Prune the smallest weights of the whole network step by step, and let each layer regenerate after every step.

    Training starts half dense (a random mask, denser in small layers) or dense. Every `frequency` steps the smallest
    weights of all layers together are pruned as far as the cubic schedule says; then each layer drops a fraction of
    its smallest weights and grows as many where the gradient of the last batch is largest. Pruning ends halfway
    through training by default, regeneration goes on to the end.

    Reference: Liu et al., Sparse Training via Boosting Pruning Plasticity with Neuroregeneration, NeurIPS 2021,
    https://arxiv.org/abs/2106.10404

    Args:
        sparsity: The final sparsity, in [0, 1), which starts at 0.5; or a schedule: `Polynomial(0.9, initial=0.0)`
            starts dense; or a function of the step. It may not fall.
        drop: Which fraction of each layer's living weights is replaced: a schedule that counts in the unit of the
            other. A number falls on a cosine to 0.005 over the whole training; it is asked for as often as the schedule
            prunes, and so is a function of the step.
        criterion: By what weights are pruned and dropped: a criterion of single weights that needs no data.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: Final sparsities of their own for some layers, also depthwise ones, which are dense otherwise: a
            dict from layer to sparsity, or a function that returns one or None. They count apart from all others.
        seed: Makes the first mask repeatable; by default it follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune or the schedule
            does not fit into the training; during training, if weights or gradients are not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = GraNet(Polynomial(0.75, initial=0.5, frequency=2), seed=1)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=1, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"]
    [0.75]
    """

    default_end = 0.5
    gradients = "after_update"
    rewires = False  # it prunes too
    scheduled = "sparsity"
    rises = True

    def __init__(
        self,
        sparsity: ScheduleLike,
        *,
        drop: ScheduleLike = 0.5,
        criterion: WeightCriterion = Magnitude(),  # noqa: B008 (pure)
        exclude: Exclude = None,
        overrides: Overrides = None,
        seed: int | None = None,
    ) -> None:
        schedule = as_schedule(self.scheduled, sparsity, lambda final: Polynomial(final, initial=min(0.5, final)))
        self.ranked_by = without_data(criterion, type(self).__name__)
        super().__init__(schedule, global_, None, exclude, overrides, seed)
        self.drop = _as_often(schedule, drop)

    def on_train_begin(self, logs: dict[str, object] | None = None) -> None:
        """Find the weights, check both schedules, and warn if they leave new weights no time."""
        super().on_train_begin(logs)
        self._warn_of_haste(self.drop)
        self._dropping = self._in_time("drop", self.drop, 1.0, rises=False)
        self._final = self._active.final

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Choose at random, or go on with what the weights carry."""
        # A dense start stays dense until the first update, also where training goes on in between.
        initial, sparsity = self.value(self._active.begin), self.value(max(time, self._active.begin))
        if not initial or not all(mask.all() for mask in recorded.values()):
            return recorded
        return self.prune(
            self.random_scores(0),
            sparsity,
            progress=self._progress(sparsity, self._final),
            distribution=erdos_renyi_kernel,
        )

    def due(self, time: int) -> bool:
        """When there is something to prune or to regenerate."""
        return self._active.due(time) or self._regenerates(time)

    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Prune the smallest weights of all layers, then regenerate each layer."""
        # A time after the end makes up for a last pruning that fell due within the same `steps_per_execution`.
        if self._active.due(time) or time > (self._active.end or time):
            masks = self.prune_smallest(weights, masks, self.value(time), self._final)
        if not self._regenerates(time):
            return masks, {}
        fraction = self._dropping.value(time)
        counts = {name: math.ceil(round(mask.sum() * fraction, 9)) for name, mask in masks.items()}
        return grow_by_gradient(self.ranked_by, weights, masks, gradients, counts)

    def _regenerates(self, time: int) -> bool:
        """New weights would be pointless after the last step."""
        return self._dropping.due(time) and not self._dropping.ends


def _as_often(sparsity: Schedule, drop: ScheduleLike) -> Schedule:
    """The schedule of `drop`; without times of its own it has those of the sparsity."""
    times: dict[str, Any] = {"begin": sparsity.begin, "frequency": sparsity.frequency, "unit": sparsity.unit}
    found = as_schedule("drop", drop, lambda level: Cosine(level, final=min(0.005, level), **times), **times)
    if found.unit != sparsity.unit:
        raise ValueError(f"drop and sparsity must count in one unit. Received: {found.unit!r} and {sparsity.unit!r}.")
    return found
