"""Freezes BatchNormalization in the course of a `fit`."""

import weakref
from typing import Any, get_args

import keras

from tfprune.common.checks import check_choice
from tfprune.shrinking.recalibration import batch_normalizations
from tfprune.training.clock import Clock, Unit

_FROZEN: "weakref.WeakKeyDictionary[keras.Model, list[keras.layers.BatchNormalization]]" = weakref.WeakKeyDictionary()
"""What is frozen in which model: a fit that broke off leaves it so, and the next one may have a callback of its own."""


class FreezeBatchNormalization(keras.callbacks.Callback):
    """Freeze every BatchNormalization after some epochs or steps: its statistics and weights stay, and are used.

    Until then each batch is normalized by its own statistics, which differ from the moving ones that a file is made
    with. Freezing them for the last part of quantize-aware training removes this difference while there is still time
    to adapt to it, and makes the steps cheaper. When `fit` ends, the layers train again as before; one that is
    cut off leaves them frozen until the next with this callback begins. Each `fit` counts anew: where it goes on at an
    `initial_epoch`, the epochs before it count, and their steps, if their number is known.

    Reference: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018,
    https://arxiv.org/abs/1806.08342, section 3.2.2

    Args:
        after: How many epochs or steps to train first, 0 or more; 0 freezes from the start. Steps that run as one
            (`steps_per_execution`) are not taken apart: it freezes before the first such block that begins late enough.
        unit: What `after` counts, `"epochs"` or `"steps"`.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if there is no BatchNormalization that trains, or
            steps are counted from a later epoch on and their number per epoch is unknown.

    Example:

    >>> import numpy as np
    >>> import tfprune
    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    >>> aware = tfprune.quantize_aware(model)
    >>> aware.compile("sgd", "mse")
    >>> data = np.ones((4, 8, 8, 1)), np.ones((4, 6, 6, 2))
    >>> history = aware.fit(*data, epochs=3, verbose=0, callbacks=[FreezeBatchNormalization(2)])
    """

    def __init__(self, after: int, unit: Unit = "epochs") -> None:
        super().__init__()
        check_choice("unit", unit, get_args(Unit))
        if after < 0:
            raise ValueError(f"after must be 0 or more {unit}. Received: {after}.")
        self.after, self.unit = after, unit

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look for something to freeze; errors come here, before time is spent."""
        self._thaw()
        self._clock = Clock(self, self.unit)
        if not self._training():
            raise ValueError(
                f"FreezeBatchNormalization finds nothing to freeze in {self.model.name!r}: it has no "
                "BatchNormalization that trains. quantize_aware folds or freezes them unless it is told "
                "batch_normalization='train'."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count, and freeze if it is time."""
        self._clock.start_epoch(epoch)
        self._freeze_if_due()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count, and freeze if it is time."""
        self._clock.start_batch(batch)
        self._freeze_if_due()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count."""
        self._clock.end_batch(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count."""
        self._clock.end_epoch()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the layers train again."""
        self._clock.stop()
        self._thaw()

    def _training(self) -> list[keras.layers.BatchNormalization]:
        return [layer for layer in batch_normalizations(self.model) if layer.trainable]

    def _freeze_if_due(self) -> None:
        if self.model not in _FROZEN and self._clock.now >= self.after:
            _FROZEN[self.model] = self._training()
            self._set_trainable(False)

    def _thaw(self) -> None:
        if self.model in _FROZEN:
            self._set_trainable(True)
            del _FROZEN[self.model]

    def _set_trainable(self, trainable: bool) -> None:
        for layer in _FROZEN[self.model]:
            layer.trainable = trainable
        self.model.make_train_function(force=True)  # the compiled step would go on as it was traced
