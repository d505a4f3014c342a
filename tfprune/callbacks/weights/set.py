"""SET: sparse evolutionary training."""

import functools
from typing import Any, Literal

import numpy as np

from tfprune.callbacks.weights.base import SparseTraining
from tfprune.common.checks import check_fraction
from tfprune.distributions import Distribution, erdos_renyi_kernel
from tfprune.granularity import floor_share
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.growth import Rewiring, drop_and_grow, drop_by_sign, grow
from tfprune.parts.lazy_arrays import Arrays
from tfprune.schedules import Constant, ScheduleLike, as_schedule


class SET(SparseTraining):
    """Train a sparse network from scratch: after every epoch drop weights near zero, and grow others at random.

    The number of living weights of each layer never changes. New weights start at zero, also where one has just been
    dropped, with nothing in the optimizer's memory. There is no update after the last epoch, since new weights would
    not be trained. Weights that stay keep their momentum; the authors' code makes a new optimizer after every epoch,
    which forgets all of it.

    Reference: Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity
    Inspired by Network Science, Nature Communications 2018, https://arxiv.org/abs/1707.04780

    Args:
        sparsity: The fraction of weights that are pruned, in [0, 1).
        criterion: `"sign"` drops the given fraction of the positive and of the negative weights, each the nearest to
            zero, as the paper does; `"magnitude"` the smallest of both together, as RigL's authors do.
        drop: Which fraction of living weights is replaced, and when. It takes `begin`, `end`, `frequency` and `unit`
            (`"steps"` or `"epochs"`). A number is dropped after every epoch; a function of the step works too.
        distribution: How sparsity is split over layers: `erdos_renyi_kernel`, `erdos_renyi` or `uniform`.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: Sparsities of their own for some layers, also depthwise ones, which are dense otherwise: a dict from
            layer to sparsity, or a function that returns one or None. They count apart from all others.
        seed: Makes the random choices repeatable; by default it follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune; during training,
            if weights are not finite.

    Example:

    >>> import keras
    >>> from tfprune.distributions import uniform
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = SET(0.75, distribution=uniform, seed=1)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[callback])
    >>> history.history["sparsity"]
    [0.75, 0.75]
    """

    scheduled = "drop"

    def __init__(
        self,
        sparsity: float,
        *,
        criterion: Literal["sign", "magnitude"] = "sign",
        drop: ScheduleLike = Constant(0.3, frequency=1, unit="epochs"),  # noqa: B008 (frozen)
        distribution: Distribution = erdos_renyi_kernel,
        exclude: Exclude = None,
        overrides: Overrides = None,
        seed: int | None = None,
    ) -> None:
        schedule = as_schedule(self.scheduled, drop, functools.partial(Constant, frequency=1, unit="epochs"))
        super().__init__(schedule, distribution, None, exclude, overrides, seed)
        self._sparsity = check_fraction("sparsity", sparsity)
        if criterion not in ("sign", "magnitude"):
            raise ValueError(f'criterion must be "sign" or "magnitude". Received: {criterion!r}.')
        self.criterion = criterion

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the weights, check the schedule, and warn if it leaves new weights no time."""
        super().on_train_begin(logs)
        self._warn_of_haste(self.schedule)

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Choose at random, or go on with what the weights carry."""
        return self.random_masks(recorded, self._sparsity)

    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Drop the weights of each layer that are nearest to zero, and grow at random."""
        gains = self.random_scores(time)
        rewired = {name: self._rewire(weights[name], mask, gains[name], time) for name, mask in masks.items()}
        return (
            {name: rewiring.mask for name, rewiring in rewired.items()},
            {name: rewiring.mask & ~rewiring.kept for name, rewiring in rewired.items()},
        )

    def _rewire(self, weights: np.ndarray, mask: np.ndarray, gain: np.ndarray, time: int) -> Rewiring:
        fraction = self.value(time)
        if self.criterion == "magnitude":
            return drop_and_grow(mask, np.abs(weights), gain, floor_share(int(mask.sum()), fraction))
        kept = drop_by_sign(weights, mask, fraction)
        return Rewiring(kept, grow(kept, gain, int(mask.sum() - kept.sum())))
