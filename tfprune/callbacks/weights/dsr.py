"""DSR: dynamic sparse reparameterization."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfprune.callbacks.weights.base import SparseTraining
from tfprune.common.checks import check_fraction, check_not_negative
from tfprune.distributions import Distribution, uniform
from tfprune.granularity import floor_share
from tfprune.graph.exclude import Exclude
from tfprune.growth import grow
from tfprune.parts.kernels import kernels
from tfprune.parts.lazy_arrays import Arrays, LazyArrays
from tfprune.schedules import Constant, ScheduleLike, as_schedule

STAYS = 2**15
"""More doublings than floating point numbers have."""


class DSR(SparseTraining):
    """Train a sparse network from scratch, and let weights move to the layers that hold on to most of theirs.

    Now and then every living weight of a magnitude below one threshold goes, in all layers alike. As many grow as went,
    shared out among the layers in proportion to the weights that are left in each, at random free positions, at zero
    and with nothing in the optimizer's memory. So the number of living weights of the network never changes, and that
    of each layer does. The largest weight of a layer always stays: a layer without any would never grow again.

    The threshold is doubled or halved until it drops a number as near to the wanted one as it can. The authors do so
    once after each update, for the next; here each update begins with the `threshold` given, so that what it does
    follows from the weights alone, and training resumes from any checkpoint.

    The default stops updating after four fifths of the training, as the authors do. There is no update after the last
    step, since new weights would not be trained.

    Reference: Mostafa and Wang, Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic Sparse
    Reparameterization, ICML 2019, https://arxiv.org/abs/1902.05967

    Args:
        sparsity: The fraction of weights that are pruned, of all layers that are not dense, in [0, 1).
        drop: Which fraction of the living weights is to move, and when. It takes `begin`, `end`, `frequency` and `unit`
            (`"steps"` or `"epochs"`). A number is dropped after every 100th step; a function of the step works too.
        threshold: A magnitude to begin with, above 0, which is doubled or halved; the paper's 1e-3.
        first_layer_dense: Whether to leave the first layer of the model dense, as the paper does.
        distribution: How sparsity is split over layers at the start: `uniform` as in the paper, `erdos_renyi_kernel`.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        seed: Makes the random choices repeatable; by default it follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune or the schedule
            does not fit into the training; during training, if weights are not finite.

    Example:

    >>> import keras
    >>> from tfprune.masking import recorded_mask
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> callback = DSR(0.5, drop=Constant(0.2, frequency=5, end=10), seed=1)
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(x, y, batch_size=1, epochs=2, verbose=0, callbacks=[callback])
    >>> living = [int(recorded_mask(layer.kernel).sum()) for layer in model.layers]
    >>> history.history["sparsity"], living[0], sum(living[1:])  # of 32 in the first layer, and of 64 + 16
    ([0.5, 0.5], 32, 40)
    """

    default_end = 0.8
    scheduled = "drop"

    def __init__(
        self,
        sparsity: float,
        *,
        drop: ScheduleLike = Constant(0.1),  # noqa: B008 (frozen)
        threshold: float = 1e-3,
        first_layer_dense: bool = True,
        distribution: Distribution = uniform,
        exclude: Exclude = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(as_schedule(self.scheduled, drop), distribution, None, exclude, None, seed)
        self._sparsity = check_fraction("sparsity", sparsity)
        if not check_not_negative("threshold", threshold):
            raise ValueError("threshold must be above 0: no doubling would raise it. 1e-3 is the paper's.")
        self.threshold = threshold
        self.first_layer_dense = first_layer_dense

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the weights, check the schedule, and warn if it leaves new weights no time."""
        super().on_train_begin(logs)
        if self.first_layer_dense:
            self._leave_out(kernels(self.model)[0].name)
        self._warn_of_haste(self.schedule)

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Choose at random, or go on with what the weights carry."""
        return self.random_masks(recorded, self._sparsity)

    def update_masks(self, weights: Arrays, masks: Arrays, gradients: Arrays, time: int) -> tuple[Arrays, Arrays]:
        """Drop what is below the threshold, and grow in proportion to what is left."""
        wanted = floor_share(sum(int(mask.sum()) for mask in masks.values()), self.value(time))
        if not wanted:
            return masks, {}
        doublings = LazyArrays(masks, lambda name: doublings_to_pass(weights[name], masks[name], self.threshold))
        chosen = _nearest(doublings, wanted)
        kept = {name: mask & (doublings[name] > chosen) for name, mask in masks.items()}
        left = [int(mask.sum()) for mask in kept.values()]
        moved = sum(int(mask.sum()) for mask in masks.values()) - sum(left)
        shares = share_out(moved, left, [mask.size - mask.sum() for mask in kept.values()])
        gains = self.random_scores(time)
        new = {name: grow(mask, gains[name], share) for (name, mask), share in zip(kept.items(), shares, strict=True)}
        return new, {name: mask & ~kept[name] for name, mask in new.items()}

    def _leave_out(self, name: str) -> None:
        self._kernels = {each: kernel for each, kernel in self._kernels.items() if each != name}
        if not self._kernels:
            raise ValueError(
                f"DSR leaves the first layer of {self.model.name!r} dense, and there is no other that it prunes. Pass "
                "first_layer_dense=False."
            )
        self._choice = dataclasses.replace(self._choice, kernels=self._kernels)


def doublings_to_pass(weights: np.ndarray, mask: np.ndarray, threshold: float) -> np.ndarray:
    """Return how often a threshold must be doubled to be above each magnitude; a negative number is halvings.

    Args:
        weights: The kernel.
        mask: Which weights live.
        threshold: The threshold, above 0.

    Returns:
        An int array of the same shape. The largest living weight, the first of several, and all that do not live are
        never passed; zeros always are.

    Example:

    >>> doublings_to_pass(np.array([0.0, 0.9, -1.0, 8.0]), np.ones(4, bool), threshold=1.0) == [-STAYS, 0, 1, STAYS]
    array([ True,  True,  True,  True])
    """
    magnitudes = np.abs(weights)
    doublings = np.frexp(magnitudes.astype(np.float64) / threshold)[1]
    doublings[magnitudes == 0] = -STAYS
    doublings[~mask] = STAYS
    if mask.any():
        doublings[np.unravel_index(np.where(mask, magnitudes, -1).argmax(), mask.shape)] = STAYS
    return doublings


def share_out(count: int, parts: Sequence[int], room: Sequence[int]) -> list[int]:
    """Share a number out in proportion to parts, where none gets more than it has room for.

    What is left after rounding down goes to the largest remainders, the earlier of equal ones; what does not fit goes
    to the others in the same way.

    Args:
        count: The number, of which there is room for all where parts are not 0.
        parts: Whole numbers.
        room: The most that each can get.

    Returns:
        Whole numbers whose sum is `count`.

    Example:

    >>> share_out(10, parts=[1, 2, 4], room=[9, 9, 9])  # 1.43, 2.86 and 5.71
    [1, 3, 6]
    >>> share_out(10, parts=[1, 2, 4], room=[9, 9, 4])
    [2, 4, 4]
    """
    shares = [0] * len(parts)
    while count:
        open_parts = [part if share < most else 0 for part, share, most in zip(parts, shares, room, strict=True)]
        total = sum(open_parts)
        given = [count * part // total for part in open_parts]
        by_remainder = sorted(range(len(parts)), key=lambda i: -(count * open_parts[i] % total))
        for index in by_remainder[: count - sum(given)]:
            given[index] += 1
        given = [min(more, most - share) for more, most, share in zip(given, room, shares, strict=True)]
        shares = [share + more for share, more in zip(shares, given, strict=True)]
        count -= sum(given)
    return shares


def _nearest(doublings: Arrays, wanted: int) -> int:
    """By how many doublings the threshold drops a number of weights nearest to the wanted one, of two the smaller."""
    found: Counter[int] = Counter()
    for each in doublings.values():
        found.update(dict(zip(*(part.tolist() for part in np.unique(each, return_counts=True)), strict=True)))
    del found[STAYS]
    levels = sorted({-STAYS, *found})  # the lowest passes zeros alone
    dropped = np.cumsum([found[level] for level in levels])
    return levels[int(np.argmin(np.abs(dropped - wanted)))]
