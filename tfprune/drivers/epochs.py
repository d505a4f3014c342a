"""What happens before and after each epoch of a phase: seeds, a check of the loss, and a backup."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.files import writing
from tfprune.drivers.batches import ShuffledBatches
from tfprune.drivers.folder import read_history, write_history
from tfprune.drivers.phases import Desk, History
from tfprune.drivers.randomness import draw_seed, seed_everything

_BACKUP = "epoch-{}.weights.h5"


class Seeds(keras.callbacks.Callback):
    """Makes what is drawn in an epoch depend on the seed and the epoch alone.

    Args:
        seed: The phase's seed.
        source: What is trained on; of `ShuffledBatches` the order too.
    """

    def __init__(self, seed: int, source: Any) -> None:
        super().__init__()
        self._seed, self._source = seed, source

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Seed everything, and take the order of the epoch."""
        seed_everything(draw_seed(self._seed, epoch), self.model)
        if isinstance(self._source, ShuffledBatches):
            self._source.start_epoch(epoch)


class StopAtNaN(keras.callbacks.Callback):
    """Raises at the end of an epoch whose loss is not a number.

    Args:
        desk: What the message tells of.
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise RuntimeError(
                f"The loss became {loss} in epoch {epoch + 1} of {self._desk.name!r}. Start anew with a lower rate: "
                f"{self._desk.how_to_restart}."
            )


class Backup(keras.callbacks.Callback):
    """Keeps logs, weights and optimizer after each epoch but the last, behind which `fit` has still work to do.

    Args:
        history: The logs of the epochs before; grows.
        epochs: How many epochs there are at most.
        stop: Whether the epoch that has just ended is the last, from the logs of all.
        folder: Where backups go; None for none.
    """

    def __init__(
        self, history: History, epochs: int, stop: Callable[[History], bool] | None, folder: Path | None
    ) -> None:
        super().__init__()
        self._logs, self._epochs, self._stop, self._folder = history, epochs, stop, folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the epoch, unless it is the last."""
        self._logs.append({name: float(value) for name, value in (logs or {}).items()})
        if self._stop is not None and self._stop(self._logs):
            self.model.stop_training = True
        if self._folder is not None and epoch + 1 < self._epochs and not self.model.stop_training:
            self._back_up(self._folder, epoch)

    def _back_up(self, folder: Path, epoch: int) -> None:
        """Write a file that is renamed when it is whole, with the epoch in its name.

        Keras' `BackupAndRestore` keeps weights and epoch in two files, of which a kill may leave one. Here the logs are
        a second file too, but written first: what they have too much of is known from the name of the other.
        """
        write_history(folder, self._logs)
        beside = folder / "partial.weights.h5"
        try:
            with writing(folder / _BACKUP.format(epoch + 1)):
                self.model.save_weights(beside, overwrite=True)
                beside.replace(folder / _BACKUP.format(epoch + 1))
        finally:
            beside.unlink(missing_ok=True)
        (folder / _BACKUP.format(epoch)).unlink(missing_ok=True)


def restore(model: keras.Model, folder: Path, first: int = 0) -> History:
    """Load the last backup, and return the logs of the epochs behind it, from the first that is trained."""
    done = max((int(path.name.split("-")[1].split(".")[0]) for path in folder.glob(_BACKUP.format("*"))), default=0)
    if not done:
        return []
    model.load_weights(folder / _BACKUP.format(done))
    return read_history(folder)[: done - first]
