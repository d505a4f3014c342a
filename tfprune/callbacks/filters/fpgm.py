"""Filter pruning via geometric median (FPGM)."""

from tfprune.callbacks.filters.base import FilterPruning, Mode, Scope
from tfprune.callbacks.filters.stages import Stage, in_epochs
from tfprune.criteria import geometric_median_distance, l2_norm
from tfprune.granularity import Channel
from tfprune.graph.exclude import Exclude
from tfprune.schedules import ScheduleLike


class FPGM(FilterPruning):
    """Zero the filters nearest to the geometric median of their layer: those that the others can replace.

    Unlike a norm, this finds redundant filters, not small ones. `norm_ratio` first prunes a part by the smallest
    L2 norm, as the paper's FPGM-mix does (`FPGM(0.3, norm_ratio=0.1)` is its 40%). Each group or layer of C
    filters loses exactly floor(C * norm_ratio) + floor(C * ratio).

    In hard mode, which is what the authors' code does, the choice is made when training starts and the filters
    stay zero in every step. In soft mode it is made anew after every `frequency` epochs and filters may grow back, as
    the paper says. Both work from scratch and on a trained model.

    Put it before callbacks that save or stop by the epoch's logs (`ModelCheckpoint`, `EarlyStopping`,
    `CSVLogger`): they then see the pruned model and its `sparsity`.

    Reference: He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration, CVPR 2019, https://arxiv.org/abs/1811.00250

    Args:
        ratio: The fraction of filters to prune by distance, in [0, 1); or a schedule in epochs, or a function from the
            number of epochs that are done to the fraction, by which ever more filters go.
        norm_ratio: The fraction to prune by norm before that, likewise; the two must add up to less than 1.
        mode: `"hard"` or `"soft"`.
        frequency: In soft mode, prune every this many epochs, and always after the last. A schedule has its own.
        scope: `"group"` prunes layers that share channels (across a residual addition) together, so that they
            can be removed exactly; `"layer"` prunes each layer on its own as in the paper and leaves
            BatchNormalization alone, so that channels which only some layers zero stay, and constants remain.
        granularity: `Channel(min_channels=4, round_to=8)` leaves at least 4 filters and a multiple of 8.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is no layer to prune.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0, callbacks=[FPGM(0.5)])
    >>> history.history["sparsity"]
    [0.5]
    """

    def __init__(
        self,
        ratio: ScheduleLike,
        *,
        norm_ratio: ScheduleLike = 0.0,
        mode: Mode = "hard",
        frequency: int = 1,
        scope: Scope = "group",
        granularity: Channel | None = None,
        exclude: Exclude = None,
    ) -> None:
        stages = [
            Stage(l2_norm, in_epochs("norm_ratio", norm_ratio, frequency)),
            Stage(geometric_median_distance, in_epochs("ratio", ratio, frequency)),
        ]
        super().__init__(stages, mode=mode, scope=scope, granularity=granularity, exclude=exclude)
