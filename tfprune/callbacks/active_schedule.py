"""A schedule in the time of one `fit`: with an end, and values that are checked as they are used."""

from numbers import Real

from tfprune.schedules import Function, Schedule
from tfprune.training.clock import Clock

_MOST_CHECKED = 10_000
"""So many times of a schedule are looked at before training; the others when they come."""


class ActiveSchedule:
    """A schedule in the time of one `fit`.

    Args:
        argument: What the user's argument is called, for messages.
        schedule: The schedule; where it has no end it gets one.
        clock: The time of the `fit`, which counts in the schedule's unit.
        default_end: Where it ends, as a fraction of the training; None for never. A `Function` ends with the training.
        limit: Values lie in [0, limit).
        rises: Whether the value may not fall.

    Raises:
        ValueError: If the schedule does not fit into the training, or has a value that it may not have.

    Example:

    >>> import keras
    >>> callback = keras.callbacks.Callback()
    >>> callback.set_params({"epochs": 2, "steps": 100})
    >>> active = ActiveSchedule("sparsity", Function(lambda t: t / 400), Clock(callback, "steps"))
    >>> active.value(100), active.final
    (0.25, 0.5)
    """

    def __init__(
        self,
        argument: str,
        schedule: Schedule,
        clock: Clock,
        default_end: float | None = None,
        limit: float = 1.0,
        rises: bool = False,
    ) -> None:
        self.argument = argument
        self.unit = schedule.unit
        self._clock = clock
        self._limit = limit
        self._rises = rises
        self._highest = 0.0
        self._schedule = self._ended(schedule, 1.0 if isinstance(schedule, Function) else default_end)
        self._check()

    @property
    def begin(self) -> int:
        """The time of the first update."""
        return self._schedule.begin

    @property
    def end(self) -> int | None:
        """The time of the last update; None for ever."""
        return self._schedule.end

    @property
    def ends(self) -> bool:
        """Whether training ends with the steps that are under way.

        That is so where `fit` ends, and the schedule has no later `end` that says that training will go on.
        """
        total = self._clock.total
        return self._clock.ends and total is not None and (self.end is None or self.end <= total)

    @property
    def final(self) -> float | None:
        """The value at the end of the schedule, or of the training; None if nobody knows when that is."""
        last = self._clock.total if self.end is None else self.end
        return None if last is None else self._checked(last)

    def due(self, t: int) -> bool:
        """Whether an update is due at time t."""
        return self._schedule.due(t)

    def value(self, t: int) -> float:
        """The value at time t.

        Raises:
            ValueError: If it is out of range, or lower than before where it may not fall.
        """
        value = self._checked(t)
        if self._rises and value < self._highest - 1e-9:
            raise ValueError(
                f"{self.argument} falls from {self._highest:g} to {value:g} at {t} {self.unit}, but pruned weights do "
                "not come back. Give a schedule that only rises, or start anew with a lower one."
            )
        self._highest = max(self._highest, value)
        return value

    def _checked(self, t: int) -> float:
        value = self._schedule.value(t)
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < self._limit:
            raise ValueError(
                f"{self.argument} must be in [0, {self._limit:g}) at all times. {type(self._schedule).__name__} gives "
                f"{value!r} at {t} {self.unit}."
            )
        return float(value)

    def _ended(self, schedule: Schedule, fraction: float | None) -> Schedule:
        total = self._clock.total
        if schedule.end is not None or fraction is None or (total is None and isinstance(schedule, Function)):
            return schedule
        if total is None:
            raise ValueError(
                f"{self._clock.owner} cannot tell when to end: the number of steps per epoch is unknown. Give "
                'the schedule an `end`, count in epochs (unit="epochs"), or pass steps_per_epoch to fit.'
            )
        end = round(total * fraction)
        if end <= schedule.begin:
            raise ValueError(
                f"{self._clock.owner} would begin at {schedule.begin} {self.unit}, but training has {total}, "
                f"and without an `end` the schedule ends at {end}. Begin earlier, train longer, or give an `end`."
            )
        return schedule.with_end(end)

    def _check(self) -> None:
        """Ask for all values that will be used, where it is known which, before time is spent."""
        begin, total = self.begin, self._clock.total
        last = begin if total is None and self.end is None else min(x for x in (total, self.end) if x is not None)
        times = [t for t in range(begin, last + 1, self._schedule.frequency) if self.due(t)]
        times = times[:: 1 + len(times) // _MOST_CHECKED] + [last] * self.due(last)
        for t in times:
            self.value(t)
        self._highest = 0.0
