"""When to prune and how much: which value holds at time t, and whether an update is due."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard, TypeVar

AnySchedule = TypeVar("AnySchedule", bound="Schedule")


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Which value (a sparsity, a fraction that is dropped and grown again, a strength) holds at time t.

    A subclass says which in `value`, and may say in `due` when updates are made; callbacks take it wherever they take a
    schedule. A penalty asks in every step or epoch, and for `value` only. In the place of a schedule, callbacks also
    take a number, or a plain function of t: see `Function`.

    Attributes:
        begin: The time of the first update.
        end: The time of the last one. None means for ever, or that the caller fills it in (`with_end`).
        frequency: An update every so many steps or epochs.
        unit: What t counts, `"steps"` or `"epochs"`. Time t is when t of them are done.

    Example:

    >>> @dataclass(frozen=True)
    ... class Staircase(Schedule):
    ...     levels: tuple[float, ...]
    ...     def value(self, t):
    ...         return self.levels[min(t // 100, len(self.levels) - 1)]
    >>> [Staircase((0.5, 0.7, 0.8)).value(t) for t in (0, 99, 100, 500)]
    [0.5, 0.5, 0.7, 0.8]
    """

    begin: int = 0
    end: int | None = None
    frequency: int = 100
    unit: Literal["steps", "epochs"] = "steps"

    def __post_init__(self) -> None:
        _check_integer("begin", self.begin, at_least=0)
        _check_integer("frequency", self.frequency, at_least=1)
        if self.end is not None:
            _check_integer("end", self.end, at_least=1)
            if self.end <= self.begin:
                raise ValueError(f"end must be later than begin. Received: begin={self.begin}, end={self.end}.")
        if self.unit not in ("steps", "epochs"):
            raise ValueError(f'unit must be "steps" or "epochs". Received: {self.unit!r}.')

    @abstractmethod
    def value(self, t: int) -> float:
        """Return the value at time t."""

    def due(self, t: int) -> bool:
        """Return whether an update is due at time t: at `begin`, and every `frequency` from there to `end`."""
        return self.begin <= t and (self.end is None or t <= self.end) and (t - self.begin) % self.frequency == 0

    def with_end(self: AnySchedule, end: int) -> AnySchedule:
        """Return the same schedule with this `end`, or itself if it has one already."""
        return replace(self, end=end) if self.end is None else self

    def get_config(self) -> dict[str, Any]:
        """Return the fields as plain values; the class called with them as keywords restores the schedule."""
        return {name: value.item() if hasattr(value, "item") else value for name, value in asdict(self).items()}

    def _progress(self, t: int) -> float:
        """Return how far t is from `begin` (0) to `end` (1)."""
        if self.end is None:
            raise ValueError(
                f"{type(self).__name__} needs to know when it ends to tell its value. "
                f"Received: end=None. Pass end=, or call with_end() with the length of the training in {self.unit}."
            )
        return min(max((t - self.begin) / (self.end - self.begin), 0.0), 1.0)


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value all the time.

    Attributes:
        level: The value, in [0, 1).

    Example:

    >>> schedule = Constant(0.3, begin=100, frequency=50)
    >>> schedule.value(120), [t for t in range(0, 220, 10) if schedule.due(t)]
    (0.3, [100, 150, 200])
    """

    level: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction("level", self.level)

    def value(self, t: int) -> float:
        """Return `level`."""
        return float(self.level)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From `level` at `begin` to `final` at `end` on half a cosine wave: slow, fast, slow.

    RigL's drop fraction; with `final=0.005` and `end` at the end of the training, GraNet's.

    Reference: Evci et al., Rigging the Lottery, ICML 2020, https://arxiv.org/abs/1911.11134

    Attributes:
        level: The value until `begin`, in [0, 1).
        final: The value from `end` on, in [0, 1).

    Example:

    >>> schedule = Cosine(0.3, end=1000)
    >>> [round(schedule.value(t), 4) for t in (0, 250, 500, 1000, 2000)]
    [0.3, 0.2561, 0.15, 0.0, 0.0]
    """

    level: float
    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction("level", self.level)
        _check_fraction("final", self.final)

    def value(self, t: int) -> float:
        """Return the value at time t; a ValueError if `end` is None."""
        wave = (1 + math.cos(math.pi * self._progress(t))) / 2
        return float(self.final + (self.level - self.final) * wave)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From `initial` at `begin` to `final` at `end`, fast at first and ever slower: the cubic of gradual pruning.

    An update is also due at `end` itself, wherever the last multiple of `frequency` falls, so that `final` is reached.

    Reference: Zhu & Gupta, To prune, or not to prune, 2017, https://arxiv.org/abs/1710.01878

    Attributes:
        final: The value from `end` on, in [0, 1).
        initial: The value until `begin`, in [0, final].
        power: The exponent; 3 in the paper, 1 is a straight line.

    Example:

    >>> schedule = Polynomial(0.8, end=400)
    >>> [round(schedule.value(t), 4) for t in (0, 100, 200, 300, 400)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8]
    """

    final: float
    initial: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rise(self.initial, self.final)
        _check_shape("power", self.power, 3)

    def value(self, t: int) -> float:
        """Return the value at time t; a ValueError if `end` is None."""
        return float(self.final + (self.initial - self.final) * (1 - self._progress(t)) ** self.power)

    def due(self, t: int) -> bool:
        """Return whether an update is due at time t, as it is at `end` too."""
        return t == self.end or super().due(t)


@dataclass(frozen=True)
class Exponential(Schedule):
    """From `initial` at `begin` to `final` at `end`, most of it at once: the rate of asymptotic soft filter pruning.

    What is left to go shrinks by the same factor in every step. At the paper's rate three quarters of the way are done
    after an eighth of the time. An update is also due at `end`.

    Reference: He et al., Asymptotic Soft Filter Pruning for Deep Convolutional Neural Networks, IEEE Transactions on
    Cybernetics 2020, https://arxiv.org/abs/1808.07471

    Attributes:
        final: The value from `end` on, in [0, 1).
        initial: The value until `begin`, in [0, final].
        rate: How fast, above 0: what is left shrinks by `exp(-rate)` over the whole time.

    Example:

    >>> schedule = Exponential(0.4, end=80, unit="epochs", frequency=1)
    >>> [round(schedule.value(t), 4) for t in (0, 10, 20, 40, 80)]
    [0.0, 0.3, 0.375, 0.3984, 0.4]
    """

    final: float
    initial: float = 0.0
    rate: float = 11.09

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_rise(self.initial, self.final)
        _check_shape("rate", self.rate, 11.09)

    def value(self, t: int) -> float:
        """Return the value at time t; a ValueError if `end` is None."""
        done = math.expm1(-self.rate * self._progress(t)) / math.expm1(-self.rate)
        return float(self.final + (self.initial - self.final) * (1 - done))

    def due(self, t: int) -> bool:
        """Return whether an update is due at time t, as it is at `end` too."""
        return t == self.end or super().due(t)


@dataclass(frozen=True)
class Function(Schedule):
    """The values of a plain function of time, as long as training goes on.

    A callback that is given a function makes one of it with these defaults: where the callback does not say otherwise,
    the function is asked after every 100th step, from the start of training to its end, and once more at the end.

    Attributes:
        function: From the time t to the value.

    Example:

    >>> schedule = Function(lambda t: min(0.8, t / 1000), end=450)
    >>> [(t, schedule.value(t)) for t in range(0, 1000, 50) if schedule.due(t)]
    [(0, 0.0), (100, 0.1), (200, 0.2), (300, 0.3), (400, 0.4), (450, 0.45)]
    """

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.function) or isinstance(self.function, type):
            raise TypeError(f"function must be a function from a time to a value. Received: {self.function!r}.")

    def value(self, t: int) -> float:
        """Return what the function returns."""
        return self.function(t)

    def due(self, t: int) -> bool:
        """Return whether an update is due at time t, as it is at `end` too."""
        return t == self.end or super().due(t)

    def get_config(self) -> dict[str, Any]:
        """Return the fields; a function has no plain value, and stays as it is."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


ScheduleLike = float | Callable[[int], float] | Schedule
"""What stands for a schedule: a number, a function of time, or a `Schedule`."""


def as_schedule(
    argument: str, given: ScheduleLike, number: Callable[[float], Schedule] = Constant, **times: Any
) -> Schedule:
    """Return a schedule, whichever way it was given.

    Args:
        argument: What the user's argument is called, for messages.
        given: A number in [0, 1), a function of time, or a schedule, which is returned as it is.
        number: From a number to the schedule that it stands for.
        **times: `begin`, `end`, `frequency` and `unit` of a function.

    Returns:
        The schedule.

    Raises:
        ValueError: If it is none of these, or the number is out of range.

    Example:

    >>> as_schedule("sparsity", 0.8, Polynomial).with_end(100).value(100)
    0.8
    >>> as_schedule("sparsity", lambda t: t / 1000, frequency=10).value(500)
    0.5
    >>> as_schedule("sparsity", 80)
    Traceback (most recent call last):
    ...
    ValueError: sparsity must be a number in [0, 1), a function of time, or a schedule. Received: 80.
    """
    if isinstance(given, Schedule):
        return given
    if callable(given) and not isinstance(given, type):
        return Function(given, **times)
    if isinstance(given, type) or not _is_number(given) or not 0 <= given < 1:
        raise ValueError(
            f"{argument} must be a number in [0, 1), a function of time, or a schedule. Received: {given!r}."
        )
    return number(given)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_integer(name: str, value: object, at_least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}. Received: {value!r}.")


def _check_fraction(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number in [0, 1). Received: {value!r}.")


def _check_rise(initial: float, final: float) -> None:
    _check_fraction("final", final)
    _check_fraction("initial", initial)
    if initial > final:
        raise ValueError(
            f"initial must not be above final: what is pruned does not come back. Received: initial={initial}, "
            f"final={final}."
        )


def _check_shape(name: str, value: float, example: float) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number above 0, such as {example:g}. Received: {value!r}.")
