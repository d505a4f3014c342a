"""Keeps a subnetwork of every cycle of a training, for an ensemble of them."""

import os
from pathlib import Path
from typing import Any

import keras

from tfprune.common.checks import check_count
from tfprune.common.files import check_writable, writing
from tfprune.training.clock import Clock


class CollectTickets(keras.callbacks.Callback):
    """Keep the model at the end of every cycle of a training: sparse subnetworks of one run, for `tickets.ensemble`.

    The learning rate falls within each cycle, and weights are rewired strongly where one begins (see the page), so that
    the subnetworks differ. The model is saved with the last step of a cycle. Put it before the callback that rewires,
    which would otherwise drop weights of the finished subnetwork at the same time.

    A cycle that training does not finish leaves no file. A `fit` that goes on after `BackupAndRestore` or at an
    `initial_epoch` finds the files of the cycles before it in their places.

    Reference: Liu et al., Deep Ensembling with No Overhead for either Training or Testing: The All-Round Blessings of
    Dynamic Sparsity (FreeTickets), ICLR 2022, https://arxiv.org/abs/2106.14568

    Args:
        folder: Where to keep them, as `cycle-1.keras` and so on; files of these names are replaced.
        cycle: How many epochs a cycle has, at least 1.
        begin: How many epochs go before the first cycle: the exploration at a high learning rate.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if no cycle ends in it.
        OSError: When `fit` starts, if the folder cannot be written to.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from tfprune.callbacks import SET
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> collected = CollectTickets(tempfile.mkdtemp(), cycle=2, begin=1)
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), epochs=5, verbose=0, callbacks=[collected, SET(0.5)])
    >>> [path.name for path in collected.paths]
    ['cycle-1.keras', 'cycle-2.keras']
    """

    def __init__(self, folder: str | os.PathLike[str], cycle: int, begin: int = 0) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.cycle = check_count("cycle", cycle)
        if isinstance(begin, bool) or not isinstance(begin, int) or begin < 0:
            raise ValueError(f"begin must be a whole number of epochs, 0 or more. Received: {begin!r}.")
        self.begin = begin
        self.paths: list[Path] = []
        """The files of the cycles that are done, the earliest first."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that a cycle ends, and that files can be written."""
        self._clock = Clock(self, "epochs")
        self.paths = []
        epochs = self.params.get("epochs", 1)
        if epochs < self.begin + self.cycle:
            raise ValueError(
                f"No cycle ends in this fit, which has {epochs} epochs: the first would after {self.begin} + "
                f"{self.cycle}. Train longer, or make cycles shorter."
            )
        check_writable(self._path(1))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count; where training goes on at a later epoch, take over the files of the cycles before it."""
        self._clock.start_epoch(epoch)
        if not self.paths:
            self.paths = [path for path in map(self._path, range(1, self._cycles(epoch) + 1)) if path.is_file()]

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count."""
        self._clock.start_batch(batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the model with the last step of a cycle."""
        before = self._clock.now
        self._clock.end_batch(batch)
        if self._clock.now > before:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the model at the end of a cycle, if the number of steps was not known."""
        if self._clock.end_epoch():
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stop counting."""
        self._clock.stop()

    def _save(self) -> None:
        cycles = self._cycles(self._clock.now)
        if cycles == self._cycles(self._clock.now - 1):
            return
        path = self._path(cycles)
        beside = path.with_suffix(".partial.keras")
        with writing(path):
            self.model.save(beside)
            beside.replace(path)
        self.paths.append(path)

    def _cycles(self, epochs: int) -> int:
        """How many cycles are done after so many epochs."""
        return max(epochs - self.begin, 0) // self.cycle

    def _path(self, number: int) -> Path:
        return self.folder / f"cycle-{number}.keras"
