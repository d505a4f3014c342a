"""One `fit` of `compress`: its learning rate, its order of samples, and a backup after each epoch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.drivers.compression.data import Data, ShuffledBatches
from tfprune.drivers.compression.display import Display, EpochLines
from tfprune.rewriting.compiling import compile_like

_BACKUP = "epoch-{}.weights.h5"


@dataclass(frozen=True)
class Phase:
    """A part of the pass that trains.

    Attributes:
        name: What it is called, also in file names.
        macs: Multiply-accumulates to prune to before training; None to make the model quantize-aware.
        epochs: How long it trains.
        learning_rate: Where the rate starts.
        seed: For everything random in it.
    """

    name: str
    macs: int | None
    epochs: int
    learning_rate: float
    seed: int


def set_rate(model: keras.Model, phase: Phase, steps: int) -> None:
    """Let the learning rate fall to zero along a cosine, and make the optimizer's slots, which files hold too.

    Args:
        model: A compiled model; its optimizer is replaced by a new one of the same kind.
        phase: Where the rate starts, and for how long.
        steps: Batches per epoch.
    """
    schedule = keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps * phase.epochs)
    compile_like(model, model, learning_rate=schedule)
    model.optimizer.build(model.trainable_variables)


def train(model: keras.Model, phase: Phase, data: Data, batch_size: int, backups: Path, display: Display) -> None:
    """Fit a model, going on from a backup of this phase if there is one.

    Keras' `BackupAndRestore` keeps weights and epoch in two files, of which a kill may leave one: here a backup is one
    file, renamed when it is whole, with the epoch in its name.

    Args:
        model: The model, with its learning rate set; it is trained in place.
        phase: How long.
        data: The training data.
        batch_size: Samples per batch, for arrays.
        backups: A folder for backups, of this phase only.
        display: Told of every epoch.

    Raises:
        RuntimeError: If the loss becomes NaN or infinite.
    """
    done = _restore(model, backups)
    display.epochs_skipped(done)
    if done == phase.epochs:
        return
    source = data.training
    if isinstance(source, tuple):
        source = ShuffledBatches(source, batch_size, phase.seed)
    # What stops must come before what saves.
    callbacks = [
        _Seeds(phase.seed, source),
        _StopAtNaN(phase.name),
        _Backup(backups),
        EpochLines(display, phase.epochs),
    ]
    # Keras shuffles the batches of a PyDataset; ours are shuffled already, and so is a tf.data.Dataset, or not at all.
    shuffle = source is data.training and isinstance(source, keras.utils.PyDataset)
    span = {"epochs": phase.epochs, "initial_epoch": done}
    model.fit(source, **span, shuffle=shuffle, callbacks=callbacks, verbose=display.verbose)


def initial_rate(model: keras.Model, num_steps: int) -> float:
    """Return the learning rate that a model is compiled with; of a schedule, which may have ended, its highest.

    Args:
        model: A compiled model.
        num_steps: How many steps a schedule is looked at, if it has not gone further already.

    Returns:
        The rate.

    Raises:
        ValueError: If it is not above 0.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # a LossScaleOptimizer has one inside
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        last = max(num_steps, int(optimizer.iterations.numpy()))
        rate = max(float(schedule(int(step))) for step in np.linspace(0, last, 200))
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"The model is compiled with a learning rate of {rate:g}, from which none for fine-tuning follows. "
            "Pass options=tfprune.CompressOptions(learning_rate=1e-3)."
        )
    return float(rate)


class _Seeds(keras.callbacks.Callback):
    """Makes what is drawn in an epoch depend on the seed and the epoch alone."""

    def __init__(self, seed: int, source: Any) -> None:
        super().__init__()
        self._seed, self._source = seed, source

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        keras.utils.set_random_seed(int(np.random.default_rng([self._seed, epoch]).integers(2**31)))
        if isinstance(self._source, ShuffledBatches):
            self._source.start_epoch(epoch)


class _StopAtNaN(keras.callbacks.Callback):
    """Raises at the end of an epoch whose loss is not a number."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            raise RuntimeError(
                f"The loss became {loss} in epoch {epoch + 1} of {self._name!r}. Start anew with a lower rate: "
                "options=tfprune.CompressOptions(learning_rate=..., restart=True)."
            )


class _Backup(keras.callbacks.Callback):
    """Keeps weights and optimizer after each epoch, in one file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._folder.mkdir(exist_ok=True)
        beside = self._folder / "partial.weights.h5"
        self.model.save_weights(beside, overwrite=True)
        beside.replace(self._folder / _BACKUP.format(epoch + 1))
        (self._folder / _BACKUP.format(epoch)).unlink(missing_ok=True)


def _restore(model: keras.Model, folder: Path) -> int:
    """Load the last backup, and return how many epochs it has behind it."""
    done = max((int(path.name.split("-")[1].split(".")[0]) for path in folder.glob(_BACKUP.format("*"))), default=0)
    if done:
        model.load_weights(folder / _BACKUP.format(done))
    return done
