"""When updates of masks fall within a `fit`: counts its steps and epochs."""

import math
from collections.abc import Callable
from typing import Any, Literal


class UpdateClock:
    """Counts the steps and epochs of one `fit`, and tells when the next update is due.

    Time t is when t steps or epochs are done. A method that gives a training step to each update counts the steps
    before it instead, as its authors do, so that its first update may take the first step.

    Args:
        params: The callback's `params`: how many epochs, and how many steps each, if that is known.
        unit: What t counts, `"steps"` or `"epochs"`.
        takes_a_step: Whether an update is made in place of a step.

    Example:

    >>> clock = UpdateClock({"epochs": 2, "steps": 10}, "steps", takes_a_step=False)
    >>> clock.start_epoch(0)
    >>> clock.start_batch(0)
    >>> clock.time_of(clock.last_due(lambda t: t % 3 == 0, num_steps=8)), clock.total("steps")
    (6, 20)
    """

    def __init__(self, params: dict[str, Any], unit: Literal["steps", "epochs"], takes_a_step: bool) -> None:
        self.steps: int | None = params.get("steps")
        self.unit = unit
        self._epochs: int = params.get("epochs", 1)
        self._takes_a_step = takes_a_step
        self._epoch: int | None = None
        self._epochs_done = 0
        self._steps_done = 0
        self._first_batch = 0
        self._end = 0

    @property
    def now(self) -> int:
        """How many steps or epochs are done."""
        return self._epochs_done if self.unit == "epochs" else self._steps_done

    def total(self, unit: Literal["steps", "epochs"]) -> int | None:
        """How many steps or epochs training has when it ends; `None` if that is not known."""
        if unit == "epochs":
            return self._epochs
        return None if self.steps is None else self._epochs * self.steps

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins; the first may be a later one, where training goes on."""
        if self._epoch is None:
            self._epochs_done, self._steps_done = epoch, epoch * (self.steps or 0)
        self._epoch = epoch

    def start_batch(self, batch: int, num_steps: int = 1) -> None:
        """The next steps, at most so many, begin with this batch of the epoch."""
        self._first_batch = batch
        self._end = batch + num_steps

    @property
    def ends(self) -> bool:
        """Whether the fit is over after the steps that are under way."""
        if self.steps is None:
            return self._epochs_done >= self._epochs
        return self._steps_done + self.num_steps(self._end) >= self._epochs * self.steps

    def num_steps(self, end: int) -> int:
        """How many steps are made from the first batch to `end`: the last `steps_per_execution` may lack some."""
        return (end if self.steps is None else min(end, self.steps)) - self._first_batch

    def last_due(self, due: Callable[[int], bool], num_steps: int) -> int | None:
        """How many of the next steps go before the last one after which an update is due, if any is.

        Args:
            due: Whether one is due at a time.
            num_steps: How many steps there are.
        """
        if self.unit == "epochs":
            ahead = (self.steps or 0) - 1 - self._first_batch
            return ahead if 0 <= ahead < num_steps and due(self.time_of(ahead)) else None
        return next((ahead for ahead in reversed(range(num_steps)) if due(self.time_of(ahead))), None)

    def time_of(self, ahead: int) -> int:
        """The time of an update after the step that has `ahead` others before it."""
        if self.unit == "epochs":
            return (self._epoch or 0) + 1
        return self._steps_done + ahead + (not self._takes_a_step)

    def end_batch(self, batch: int) -> None:
        """The steps up to and with this batch are made."""
        self._steps_done += self.num_steps(batch + 1)
        if batch + 1 >= (self.steps or math.inf):
            self._epochs_done = (self._epoch or 0) + 1

    def end_epoch(self) -> bool:
        """The epoch is over; return whether only this call told so, as the number of steps was not known."""
        if self._epoch is None or self._epochs_done > self._epoch:
            return False
        self._epochs_done = self._epoch + 1
        return self.steps is None
