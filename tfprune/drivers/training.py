"""How a phase trains: by `fit` with a backup after each epoch, or by a function of the user's own."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from tfprune.common.checks import check_count
from tfprune.data.fingerprints import model_fingerprint
from tfprune.distillation import distill
from tfprune.drivers.batches import ShuffledBatches, num_batches, window
from tfprune.drivers.display import EpochLines
from tfprune.drivers.epochs import Backup, Seeds, StopAtNaN, restore
from tfprune.drivers.fingerprints import data_fingerprint
from tfprune.drivers.folder import plain
from tfprune.drivers.phases import Desk, History, Training
from tfprune.drivers.randomness import draw_seed, seed_everything
from tfprune.rewriting.compiling import compile_like

_BATCH_SIZE = 32
_OURS = {"x", "y", "sample_weight", "epochs", "initial_epoch", "callbacks", "verbose", "shuffle", "validation_split"}
_FIT = set(inspect.signature(keras.Model.fit).parameters) - {"self"} - _OURS


@dataclass(frozen=True)
class Fit(Training):
    """Training by `keras.Model.fit`, which goes on after the last epoch that an earlier process has ended.

    The order of arrays and all that layers draw depend on the phase's seed and the epoch alone, so that the weights are
    the same, bit for bit, as without an interruption; on a GPU after `tf.config.experimental.enable_op_determinism()`.
    Of callbacks this is true if all that they know from earlier epochs is in weights, optimizer and the number of the
    epoch, as for those of tfprune. `EarlyStopping` and its like remember in Python: use `stop`, or `backups=False`.

    Attributes:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, shuffled anew in each epoch; or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches, in an order of their own.
        epochs: How many at most.
        learning_rate: A number, from which the rate falls to zero along a cosine; or a schedule. Both start with a
            new optimizer of the kind that the model is compiled with. None to train on with its own.
        callbacks: Makes the callbacks.
        stop: Whether the epoch that has just ended is the last, from the logs of all epochs of the phase.
        arguments: More arguments of `fit`: `batch_size`, `validation_data`, `class_weight` and so on.
        backups: Whether a backup is kept after each epoch; without, a phase that is cut off begins again.
        teacher: A model by whose answers the phase's model learns, beside labels; see `tfprune.distill`. It starts with
            a new optimizer, so there has to be a learning rate.
        first_step: With which batch it begins, counted from the first of epoch 0: to go on with the rest of a training
            whose state is that before this batch.
        last_step: The first batch that it leaves out; None to train to the end of the last epoch.

    Example:

    >>> import numpy as np
    >>> def stop(history):
    ...     return len(history) > 3 and history[-1]["val_loss"] > history[-4]["val_loss"]
    >>> x, y = np.zeros((8, 2)), np.zeros(8)
    >>> Fit((x, y), epochs=50, stop=stop, arguments={"validation_data": (x, y)}).summary()
    'epochs: 50'
    """

    data: Any
    epochs: int
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] = tuple
    stop: Callable[[History], bool] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    backups: bool = True
    teacher: keras.Model | None = None
    first_step: int = 0
    last_step: int | None = None

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        if not isinstance(self.data, tuple | tf.data.Dataset | keras.utils.PyDataset):
            raise TypeError(
                f"data must be a tuple (x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset or a "
                f"keras.utils.PyDataset, which can be read again and again. Received: {type(self.data).__name__}."
            )
        wrong = sorted(set(self.arguments) - _FIT)
        if wrong:
            raise ValueError(f"arguments may hold {sorted(_FIT)}; the others of fit are set by the run. Got: {wrong}.")
        if "batch_size" in self.arguments and not isinstance(self.data, tuple):
            raise ValueError("batch_size is for arrays in a tuple (x, y). A dataset has batches already.")
        if self.teacher is not None and self.learning_rate is None:
            raise ValueError("A phase with a teacher starts with a new optimizer: give it a learning_rate.")
        if isinstance(self.learning_rate, int | float) and self._num_steps() is None:
            raise ValueError(
                "The length of the data is not known or endless, so no learning rate can be planned. Pass "
                "steps_per_epoch in arguments, or a schedule as learning_rate."
            )
        self._check_span()

    @property
    def num_epochs(self) -> int:
        """How many epochs it trains, those of which only a part is wanted among them."""
        return self._last_epoch() - self._first_epoch()

    def settings(self) -> dict[str, Any]:
        """Return what the result depends on, but for the data and what functions do."""
        rate = self.learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        callbacks = [type(callback).__name__ for callback in self.callbacks()]
        named = {name: _plain_or_fingerprint(value) for name, value in self.arguments.items()}
        span = {"first_step": self.first_step, "last_step": self.last_step}
        rest: dict[str, Any] = {name: step for name, step in span.items() if step}
        if self.teacher is not None:
            rest["teacher"] = self._teacher_fingerprint
        return {"epochs": self.epochs, "learning_rate": rate, "callbacks": callbacks, **named, **rest}

    @cached_property
    def _teacher_fingerprint(self) -> str:
        """Taken once: settings are asked for again and again, and a teacher never changes."""
        assert self.teacher is not None
        return model_fingerprint(self.teacher)

    def summary(self) -> str:
        """Return for how long, and from which rate."""
        rate = f", learning rate: {self.learning_rate:.2g}" if isinstance(self.learning_rate, int | float) else ""
        return f"epochs: {self.num_epochs}{rate}"

    def start(self, model: keras.Model) -> None:
        """Give a model a new optimizer with the learning rate, if there is one."""
        if not model.compiled:
            raise ValueError(f"The model {model.name!r} is to train, but is not compiled. Compile it in `prepare`.")
        rate = self.learning_rate
        if isinstance(rate, int | float):
            rate = keras.optimizers.schedules.CosineDecay(rate, self._num_steps())
        if rate is not None:
            compile_like(model, model, learning_rate=rate)

    def train(self, model: keras.Model, desk: Desk) -> History:
        """Fit a model, going on from a backup of this phase if there is one.

        Args:
            model: The model, started; it is trained in place.
            desk: Where.

        Returns:
            The logs of all epochs, also of those before the backup.

        Raises:
            RuntimeError: If the loss becomes NaN or infinite.
        """
        if self.teacher is not None:
            model = distill(model, self.teacher)  # it holds the same weights
            model.optimizer.build(model.trainable_variables)  # a backup has its slots
        first = self._first_epoch()
        history = restore(model, desk.backups, first)
        desk.display.epochs_skipped(len(history))
        source = self.data
        if isinstance(source, tuple):
            source = ShuffledBatches(source, self._batch_size(), desk.seed)
        # Keras shuffles the batches of a PyDataset. Ours are shuffled already, and so is a tf.data.Dataset, or never.
        given = {**self.arguments, "shuffle": source is self.data and isinstance(source, keras.utils.PyDataset)}
        given.pop("batch_size", None)
        for part, begin, end in self._parts(source, first + len(history)):
            keep = Backup(history, self._last_epoch(), self.stop, desk.backups if self.backups else None)
            # What stops must come before what keeps; and what users' callbacks do at the end of an epoch is kept too.
            callbacks = [
                Seeds(desk.seed, source),
                StopAtNaN(desk),
                *self.callbacks(),
                keep,
                EpochLines(desk.display, self.epochs),
            ]
            span = {"epochs": end, "initial_epoch": begin}
            model.fit(part, **given, **span, callbacks=callbacks, verbose=desk.display.verbose)
            if model.stop_training:
                break
        return history

    def _parts(self, source: Any, begin: int) -> Iterator[tuple[Any, int, int]]:
        """What to fit on, from which epoch to which: an epoch of which only some batches are wanted stands alone."""
        per_epoch, last = self._num_steps_of_epoch() or 0, self._last_epoch()
        while begin < last:
            first_step = max(self.first_step - begin * per_epoch, 0)
            end_step = per_epoch if self.last_step is None else min(self.last_step - begin * per_epoch, per_epoch)
            if first_step or end_step < per_epoch:
                yield window(source, first_step, end_step), begin, begin + 1
                begin += 1
            else:
                end = last if self.last_step is None else self.last_step // per_epoch
                yield source, begin, end
                begin = end

    def _first_epoch(self) -> int:
        return self.first_step // (self._num_steps_of_epoch() or 1)

    def _last_epoch(self) -> int:
        return self.epochs if self.last_step is None else -(-self.last_step // (self._num_steps_of_epoch() or 1))

    def _check_span(self) -> None:
        if not self.first_step and self.last_step is None:
            return
        per_epoch, total = self._num_steps_of_epoch(), self._num_steps()
        if per_epoch is None or total is None:
            raise ValueError("The length of the data is not known, so a training cannot begin or end at a step of it.")
        last = total if self.last_step is None else self.last_step
        if not 0 <= self.first_step < last <= total:
            raise ValueError(
                f"Steps {self.first_step} to {last} are no part of a training of {total} steps: {self.epochs} epochs "
                f"of {per_epoch} batches."
            )
        within = self.first_step % per_epoch or last % per_epoch
        if within and (isinstance(self.data, keras.utils.PyDataset) or "steps_per_epoch" in self.arguments):
            raise ValueError(
                f"Only of arrays and a tf.data.Dataset can a part of an epoch be taken. Of a keras.utils.PyDataset, or "
                f"with steps_per_epoch, take a multiple of the {per_epoch} steps of an epoch."
            )

    def _batch_size(self) -> int:
        return int(self.arguments.get("batch_size") or _BATCH_SIZE)

    def _num_steps_of_epoch(self) -> int | None:
        return self.arguments.get("steps_per_epoch") or num_batches(self.data, self._batch_size())

    def _num_steps(self) -> int | None:
        per_epoch = self._num_steps_of_epoch()
        return None if per_epoch is None else per_epoch * self.epochs


@dataclass(frozen=True)
class Function(Training):
    """Training by a function of the user's own, such as a custom loop. Where it is cut off it is called again.

    Random seeds are set before. The weights are all that it leaves: a model that is compiled has a new optimizer of the
    same settings before it and behind it, also if the function compiles it in another way.

    Attributes:
        function: Trains a model in place.
        depends_on: What the result depends on, as plain values.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> Function(lambda model: model.set_weights([np.ones((2, 3)), np.zeros(3)]), {"constant": 1.0}).settings()
    {'constant': 1.0}
    """

    function: Callable[[keras.Model], object]
    depends_on: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = field(default=0, init=False)

    def settings(self) -> dict[str, Any]:
        """Return what the user says that the result depends on."""
        return dict(self.depends_on)

    def start(self, model: keras.Model) -> None:
        """Give a model a new optimizer."""
        compile_like(model, model)

    def train(self, model: keras.Model, desk: Desk) -> History:
        """Call the function."""
        seed_everything(draw_seed(desk.seed, 0), model)
        as_before = keras.Sequential()
        compile_like(model, as_before)
        self.function(model)
        compile_like(as_before, model)
        return []


def _plain_or_fingerprint(value: Any) -> Any:
    if isinstance(value, keras.utils.PyDataset) or not isinstance(value, str | int | float | bool | dict | None):
        return data_fingerprint(value)
    return plain({"value": value})["value"]
