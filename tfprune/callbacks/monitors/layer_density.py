"""The density of every layer in the logs of an epoch."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.exclude import Exclude
from tfprune.parts.kernels import Kernel, kernels
from tfprune.training.masks import living_weights

LOG_PREFIX = "density/"


class LayerwiseDensity(keras.callbacks.Callback):
    """Log the density of every kernel after every epoch: the fraction of its weights that are alive.

    The epoch logs receive `density/<name of the kernel>` (`density/conv1`, or `density/lstm/recurrent_kernel` where a
    layer has several), `density`, that of all kernels together, and, unless a callback before it has logged the
    `sparsity` of what it prunes, `sparsity`, which is 1 - `density`. So do `History`, `CSVLogger` and `TensorBoard`.
    `tfprune.layerwise_density` shows them as a table over time. It only measures, works beside every callback that
    prunes, and is one of its own because a progress bar with the densities of fifty layers is hard to read.

    Put it after the callback that prunes and before `CSVLogger` and `TensorBoard`: these see only what was logged
    before them. Before a callback that prunes at the end of an epoch (`SoftFilterPruning`, for one), it logs what was
    alive until then.

    Args:
        exclude: Layers to leave out: a list of layer objects, or a function from a layer to bool.

    Raises:
        ValueError: When `fit` starts, if there is no trainable layer with a kernel, or `exclude` names a foreign layer.

    Example:

    >>> from tfprune.callbacks import FPGM
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(8, "relu", name="hidden"), keras.layers.Dense(1, name="last")])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(
    ...     np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[FPGM(0.5), LayerwiseDensity()])
    >>> history.history["density/hidden"], history.history["density/last"]
    ([0.5, 0.5], [1.0, 1.0])
    """

    def __init__(self, *, exclude: Exclude = None) -> None:
        super().__init__()
        self.exclude = exclude
        self._kernels: tuple[Kernel, ...] = ()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the kernels; errors come here, before time is spent."""
        self._kernels = kernels(self.model, self.exclude)
        if not self._kernels:
            raise ValueError(
                f"LayerwiseDensity finds nothing to measure in {self.model.name!r}: it has no trainable layer with a "
                "kernel that is not excluded."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the densities."""
        if logs is None:
            return
        weights = total = 0
        for kernel in self._kernels:
            living = living_weights(kernel.variable)
            count = int(np.count_nonzero(living))
            logs[LOG_PREFIX + kernel.name] = count / living.size
            weights, total = weights + living.size, total + count
        logs["density"] = total / weights
        logs.setdefault("sparsity", 1 - logs["density"])
