"""How hard a penalty pulls in each training step."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.callbacks.active_schedule import ActiveSchedule
from tfprune.training.clock import Clock


class Strength:
    """The strength of a penalty, step by step: a number, or a schedule in the time of a `fit`.

    The step that begins at time t pulls as hard as the schedule says for t, also between the steps that run as one:
    before each block the strengths of all of its steps are written down, and each step takes its own.

    Args:
        model: A built and compiled Keras model.
        clock: The time of the `fit`, in the schedule's unit.
        given: The number or schedule.
    """

    def __init__(self, model: keras.Model, clock: Clock, given: float | ActiveSchedule) -> None:
        self._clock = clock
        self._schedule = given if isinstance(given, ActiveSchedule) else None
        self._size = clock.block if self._schedule is not None and self._schedule.unit == "steps" else 1
        first = 0.0 if isinstance(given, ActiveSchedule) else given
        self._now = np.float32(first)
        with model.distribute_strategy.scope():
            self._values = keras.Variable(
                np.full(self._size, first), dtype="float32", trainable=False, aggregation="only_first_replica"
            )

    def prepare(self) -> None:
        """Write down the strengths of the steps that begin now."""
        if self._schedule is not None:
            time = self._clock.now
            self._now = np.float32(self._schedule.value(time))
            later = [self._schedule.value(time + ahead) for ahead in range(1, self._size)]
            self._values.assign([self._now, *later])

    def note(self) -> None:
        """The steps are made: the strength is that of the last one."""
        if self._schedule is not None and self._schedule.unit == "steps":
            self._now = np.float32(self._schedule.value(self._clock.now - 1))

    def stop(self) -> None:
        """Pull no more."""
        self._schedule, self._now = None, np.float32(0.0)
        self._values.assign(np.zeros(self._size))

    def numpy(self) -> np.float32:
        """The strength of the last step, or of the next where none was made."""
        return self._now

    def tensor(self) -> Any:
        """The strength of this step, inside the compiled step: a scalar."""
        values = tf.identity(self._values.value)
        return values[0] if self._size == 1 else tf.gather(values, self._clock.position())
