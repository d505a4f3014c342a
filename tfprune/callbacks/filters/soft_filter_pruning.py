"""Soft filter pruning (SFP)."""

from tfprune.callbacks.filters.base import FilterPruning, Scope
from tfprune.callbacks.filters.stages import in_epochs
from tfprune.criteria import l2_norm
from tfprune.granularity import Channel
from tfprune.graph.exclude import Exclude
from tfprune.schedules import ScheduleLike


class SoftFilterPruning(FilterPruning):
    """Zero the filters with the smallest L2 norm after every epoch, and let them grow back in the next.

    The network keeps its capacity while it trains, and learns to do without whichever filters are weak. Bias, gamma
    and beta of a zeroed filter shrink to a tenth each time, so that gradients reach it, and it comes back as far as
    they ask for it, not at once to full strength. Over few steps, or at a low learning rate, the choice does not
    change. It works from scratch, where the first pruning follows the first epoch, and on a trained model (use a tenth
    of the learning rate then). Each group or layer of C filters loses exactly floor(C * ratio). After the last epoch
    the pruned filters are zero throughout, and `tfprune.shrink` removes them.

    Put it before callbacks that save or stop by the epoch's logs (`ModelCheckpoint`, `EarlyStopping`,
    `CSVLogger`): they then see the pruned model and its `sparsity`.

    Reference: He et al., Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks, IJCAI 2018,
    https://arxiv.org/abs/1808.06866

    Args:
        ratio: The fraction of filters to prune, in [0, 1); or a schedule in epochs, or a function from the number of
            epochs that are done to the fraction.
        frequency: Prune every this many epochs, and always after the last. A schedule has its own.
        scope: `"group"` prunes layers that share channels (across a residual addition) together, so that they
            can be removed exactly; `"layer"` prunes each layer on its own as in the paper and leaves
            BatchNormalization alone, so that channels which only some layers zero stay, and constants remain; each
            pruning then takes away what BatchNormalization has brought back.
        granularity: `Channel(min_channels=4, round_to=8)` leaves at least 4 filters and a multiple of 8.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is no layer to prune.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(
    ...     np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[SoftFilterPruning(0.5)])
    >>> history.history["sparsity"]
    [0.5, 0.5]
    """

    def __init__(
        self,
        ratio: ScheduleLike,
        *,
        frequency: int = 1,
        scope: Scope = "group",
        granularity: Channel | None = None,
        exclude: Exclude = None,
    ) -> None:
        schedule = in_epochs("ratio", ratio, frequency)
        super().__init__(schedule, l2_norm, mode="soft", scope=scope, granularity=granularity, exclude=exclude)
