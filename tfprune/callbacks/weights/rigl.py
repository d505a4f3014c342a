"""RigL: rigging the lottery."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfprune.callbacks.weights.base import SparseTraining, without_data
from tfprune.common.checks import check_fraction
from tfprune.criteria import Magnitude, WeightCriterion
from tfprune.distributions import Distribution, erdos_renyi_kernel
from tfprune.granularity import floor_share
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.growth import drop_and_grow
from tfprune.parts.lazy_arrays import Arrays
from tfprune.parts.weight_choice import scores_of
from tfprune.schedules import Cosine, ScheduleLike, as_schedule


class RigL(SparseTraining):
    """Train a sparse network from scratch: drop small weights now and then, and grow where the gradient is largest.

    The number of living weights of each layer never changes. Every `frequency` steps a training step is given to an
    update of the masks instead of the weights: of each layer's n living weights, floor(drop * n) of the smallest
    magnitude go, and as many grow where the loss of that batch falls fastest, at zero and with nothing in the
    optimizer's memory. A weight that is dropped and grown in one update keeps its value.

    The default stops updating after three quarters of the training. Sparse networks learn more slowly: train two to
    five times as long as a dense one to get the most of it.

    Reference: Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020,
    https://arxiv.org/abs/1911.11134

    Args:
        sparsity: The fraction of weights that are pruned, in [0, 1).
        drop: Which fraction of living weights is replaced, and when: `Cosine(0.3)` decays to zero, `Constant(0.3)`
            stays. Both take `begin`, `end`, `frequency` and `unit` (`"steps"` or `"epochs"`). A number stands for the
            cosine; a function of the step works too.
        criterion: By what weights are dropped: a criterion of single weights that needs no data.
        distribution: How sparsity is split over layers: `erdos_renyi_kernel`, `erdos_renyi` or `uniform`.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: Sparsities of their own for some layers, also depthwise ones, which are dense otherwise: a dict from
            layer to sparsity, or a function that returns one or None. They count apart from all others.
        seed: Makes the first mask repeatable; by default it follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune or the schedule
            does not fit into the training; during training, if weights or gradients are not finite.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tfprune.distributions import uniform
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = RigL(0.75, drop=Cosine(0.3, frequency=2), distribution=uniform, seed=1)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), batch_size=1, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"]
    [0.75]
    """

    default_end = 0.75
    gradients = "instead_of_update"
    scheduled = "drop"

    def __init__(
        self,
        sparsity: float,
        *,
        drop: ScheduleLike = Cosine(0.3),  # noqa: B008 (frozen)
        criterion: WeightCriterion = Magnitude(),  # noqa: B008 (pure)
        distribution: Distribution = erdos_renyi_kernel,
        exclude: Exclude = None,
        overrides: Overrides = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(as_schedule(self.scheduled, drop, Cosine), distribution, None, exclude, overrides, seed)
        self.ranked_by = without_data(criterion, type(self).__name__)
        self._sparsity = check_fraction("sparsity", sparsity)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the weights, check the schedule, and warn if it leaves new weights no time."""
        super().on_train_begin(logs)
        self._warn_of_haste(self.schedule)

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Choose at random, or go on with what the weights carry."""
        return self.random_masks(recorded, self._sparsity)

    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Drop the smallest weights of each layer, and grow by the gradient."""
        fraction = self.value(time)
        counts = {name: floor_share(int(mask.sum()), fraction) for name, mask in masks.items()}
        return grow_by_gradient(self.ranked_by, weights, masks, gradients, counts)


def grow_by_gradient(
    criterion: WeightCriterion, weights: Arrays, masks: Arrays, gradients: Arrays, counts: Mapping[str, int]
) -> tuple[Arrays, Arrays]:
    """Drop the lowest weights of each layer, and grow as many where the gradient is largest.

    Args:
        criterion: By what weights are dropped.
        weights: By kernel name.
        masks: The masks that hold now, by kernel name.
        gradients: The dense gradients, by kernel name.
        counts: How many weights each kernel drops.

    Returns:
        The new masks, and bool arrays that are True where a weight starts anew: where none was alive. One that was
        dropped and grown at once keeps its value.
    """
    scores = scores_of(criterion, weights, masks)
    grown = {
        name: drop_and_grow(mask, scores[name], np.abs(gradients[name]), counts[name]).mask
        for name, mask in masks.items()
    }
    return grown, {name: mask & ~masks[name] for name, mask in grown.items()}
