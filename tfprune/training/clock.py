"""The time of a `fit`: one clock for the steps and epochs of every callback."""

from collections.abc import Callable
from typing import Any, Literal

import keras

from tfprune.training.counted_steps import CountedSteps

Unit = Literal["steps", "epochs"]


class Clock:
    """Counts the steps or epochs of one `fit`, and tells when updates fall due.

    Time t is when t steps or epochs are done: the step that begins at time t is the (t + 1)th. A method that gives a
    training step to each update counts the steps before it instead, as its authors do, so that its first update may
    take the first step.

    A step is one batch, also where an optimizer only accumulates its gradient or skips it. Of a block of
    `steps_per_execution` those count that are made. A `fit` that begins at a later epoch goes on at the time
    `epoch * steps`. Where the number of steps per epoch is unknown it cannot, and counting steps is refused.

    Make one when training begins, call `start_epoch`, `start_batch`, `end_batch` and `end_epoch` as Keras calls the
    callback, and `stop` when training ends. A callback that counts epochs may leave the batches out.

    Args:
        callback: Whose `fit` it is; its `model` and `params` are set.
        unit: What t counts, `"steps"` or `"epochs"`.
        takes_a_step: Whether an update is made in place of a step.

    Example:

    >>> callback = keras.callbacks.Callback()
    >>> callback.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    >>> callback.set_params({"epochs": 2, "steps": 10})
    >>> clock = Clock(callback, "steps")
    >>> clock.start_epoch(1)
    >>> clock.start_batch(0)
    >>> clock.end_batch(0)
    >>> clock.now, clock.total
    (11, 20)
    """

    def __init__(self, callback: keras.callbacks.Callback, unit: Unit = "epochs", takes_a_step: bool = False) -> None:
        params: dict[str, Any] = callback.params
        self.steps: int | None = params.get("steps")
        """How many steps an epoch has, as `fit` was told; None if that is not known."""
        self.unit = unit
        self.epoch: int | None = None
        """The epoch that runs, or ran last; None before the first."""
        self._callback = callback
        self._epochs: int = params.get("epochs", 1)
        self._block = int(getattr(callback.model, "steps_per_execution", 1))
        self._takes_a_step = takes_a_step
        self._counted: CountedSteps | None = None
        self._epochs_done = self._steps_done = 0
        self._first_batch = self._last_made = 0

    @property
    def owner(self) -> str:
        """What counts, for messages: the name of the callback's class."""
        return type(self._callback).__name__

    @property
    def now(self) -> int:
        """How many steps or epochs are done."""
        return self._epochs_done if self.unit == "epochs" else self._steps_done

    @property
    def total(self) -> int | None:
        """The time at which training ends; None if that is not known."""
        if self.unit == "epochs":
            return self._epochs
        return None if self.steps is None else self._epochs * self.steps

    @property
    def ends(self) -> bool:
        """Whether the fit is over after the steps that are under way, as far as that is known."""
        if self.steps is None or self.epoch is None:
            return self._epochs_done >= self._epochs
        return self.epoch + 1 >= self._epochs and self._first_batch + self._block >= self.steps

    @property
    def block(self) -> int:
        """How many steps run as one at most: `steps_per_execution`."""
        return self._block

    def position(self) -> Any:
        """How many steps of the block come before this one, inside the compiled step: an int32 scalar, or 0."""
        return 0 if self._counted is None else self._counted.position()

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins; the first may be a later one, where training goes on.

        Raises:
            ValueError: If steps are counted from a later epoch on, and nobody knows how many went before.
        """
        if self.epoch is None:
            self._check_known(epoch)
            self._epochs_done, self._steps_done = epoch, epoch * (self.steps or 0)
            if self.unit == "steps" and self._block > 1:
                self._counted = CountedSteps.join(self._callback.model, self._callback.params)
        self.epoch, self._first_batch = epoch, 0
        self._epochs_done = max(self._epochs_done, epoch)

    def start_batch(self, batch: int) -> None:
        """The next block of steps begins with this batch of the epoch."""
        self._first_batch = batch
        if self._counted is not None:
            self._counted.restart()

    def end_batch(self, batch: int) -> None:
        """The block is over, and would have ended with this batch of the epoch."""
        self._last_made = batch + 1 - self._first_batch if self._counted is None else self._count()
        self._steps_done += self._last_made
        if self.steps is not None and batch + 1 >= self.steps:
            self._epochs_done = (self.epoch or 0) + 1

    def end_epoch(self) -> bool:
        """The epoch is over; return whether only this call told so, since its last step was not known as such.

        That is so where the number of steps is unknown, or the data ends before it. An epoch in which a callback stops
        the training early is not done.
        """
        if self.epoch is None or self._epochs_done > self.epoch:
            return False
        if self.steps is not None and getattr(self._callback.model, "stop_training", False):
            return False
        self._epochs_done = self.epoch + 1
        return True

    def stop(self) -> None:
        """Training ends."""
        if self._counted is not None:
            self._counted.leave()
            self._counted = None

    def planned(self, due: Callable[[int], bool]) -> int | None:
        """How many of the coming steps go before the last one after which an update is due, if any is.

        Args:
            due: Whether one is due at a time.
        """
        likely = self._block if self.steps is None else min(self._block, self.steps - self._first_batch)
        found = self._last_due(due, likely, self._steps_done)
        return self._last_due(due, self._block, self._steps_done) if found is None else found

    def time_of(self, ahead: int) -> int:
        """The time of an update after the coming step that has `ahead` others before it."""
        return self._time_of(ahead, self._steps_done)

    def passed(self, due: Callable[[int], bool]) -> int | None:
        """The time of the last update that fell due in the block that has just ended, if any did.

        Args:
            due: Whether one is due at a time.
        """
        start = self._steps_done - self._last_made
        ahead = self._last_due(due, self._last_made, start)
        return None if ahead is None else self._time_of(ahead, start)

    def _last_due(self, due: Callable[[int], bool], num_steps: int, start: int) -> int | None:
        if self.unit == "epochs":
            ahead = (self.steps or 0) - 1 - self._first_batch
            return ahead if 0 <= ahead < num_steps and due(self._time_of(ahead, start)) else None
        return next((ahead for ahead in reversed(range(num_steps)) if due(self._time_of(ahead, start))), None)

    def _time_of(self, ahead: int, start: int) -> int:
        if self.unit == "epochs":
            return (self.epoch or 0) + 1
        return start + ahead + (not self._takes_a_step)

    def _count(self) -> int:
        assert self._counted is not None
        made = self._counted.count()
        if not made:
            raise RuntimeError(
                f"{self.owner} counts the calls of train_step, and this model's training function "
                "made none. Let its make_train_function call train_step, or compile it with steps_per_execution=1."
            )
        return made

    def _check_known(self, epoch: int) -> None:
        if epoch > 0 and self.unit == "steps" and self.steps is None:
            raise ValueError(
                f"{self.owner} counts steps, but fit starts at epoch {epoch} and the number of "
                'steps per epoch is unknown. Pass steps_per_epoch to fit, or count in epochs (unit="epochs").'
            )
