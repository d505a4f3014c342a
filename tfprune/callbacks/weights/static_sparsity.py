"""Static sparse training: a random mask that never changes."""

from tfprune.callbacks.weights.base import SparseTraining
from tfprune.common.checks import check_fraction
from tfprune.distributions import Distribution, erdos_renyi_kernel
from tfprune.graph.exclude import Exclude, Overrides
from tfprune.parts.lazy_arrays import Arrays
from tfprune.schedules import Constant


class StaticSparsity(SparseTraining):
    """Prune weights at random before training, and train the rest: the baseline of dynamic sparse training.

    On weights that carry masks of the same density already, those masks are held instead: to fine-tune what
    `RigL` or `SET` has trained, say.

    Reference: Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity
    Inspired by Network Science, Nature Communications 2018, https://arxiv.org/abs/1707.04780 (the fixed sparse
    topology it compares with); Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022,
    https://arxiv.org/abs/2202.02643

    Args:
        sparsity: The fraction of weights that are pruned, in [0, 1).
        distribution: How it is split over layers: `erdos_renyi_kernel`, `erdos_renyi` or `uniform`.
        exclude: Layers to leave dense: a list of layer objects, or a function from a layer to bool.
        overrides: Sparsities of their own for some layers, also depthwise ones, which are dense otherwise: a dict from
            layer to sparsity, or a function that returns one or None. They count apart from all others.
        seed: Makes the choice repeatable; by default it follows `keras.utils.set_random_seed`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is nothing to prune.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from tfprune.distributions import uniform
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> callback = StaticSparsity(0.75, distribution=uniform, seed=1)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0, callbacks=[callback])
    >>> history.history["sparsity"]
    [0.75]
    """

    def __init__(
        self,
        sparsity: float,
        *,
        distribution: Distribution = erdos_renyi_kernel,
        exclude: Exclude = None,
        overrides: Overrides = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(Constant(check_fraction("sparsity", sparsity)), distribution, None, exclude, overrides, seed)
        self._sparsity = sparsity

    def start_masks(self, recorded: Arrays, time: int) -> Arrays:
        """Choose at random, or go on with what the weights carry."""
        return self.random_masks(recorded, self._sparsity)

    def due(self, time: int) -> bool:
        """Never: the masks stay."""
        return False
