"""Which share of the filters goes at which epoch, and by which criterion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfprune.common.checks import check_fraction
from tfprune.criteria import AnyChannelCriterion, as_channel_criterion, l2_norm
from tfprune.parts.ranking import Share
from tfprune.schedules import Constant, Function, Schedule, ScheduleLike, as_schedule


@dataclass(frozen=True)
class Stage:
    """One pass of a choice of filters: by which criterion, and which share of all filters goes.

    Attributes:
        criterion: A criterion of channels; see `tfprune.criteria`.
        sparsity: The fraction to prune, in [0, 1); or a schedule in epochs, or a function from the number of epochs
            that are done to the fraction.

    Example:

    >>> from tfprune.criteria import geometric_median_distance
    >>> mix = [Stage(l2_norm, 0.1), Stage(geometric_median_distance, 0.3)]  # 40%, as FPGM's paper mixes them
    >>> [stage.sparsity for stage in mix]
    [0.1, 0.3]
    """

    criterion: AnyChannelCriterion
    sparsity: ScheduleLike

    @property
    def schedule(self) -> Schedule:
        """The sparsity as a schedule in epochs."""
        return in_epochs("sparsity", self.sparsity)


def in_epochs(argument: str, sparsity: ScheduleLike, frequency: int = 1) -> Schedule:
    """Return a schedule in epochs, made of a number or a function if need be.

    Args:
        argument: What the user's argument is called, for messages.
        sparsity: A number, a schedule or a function.
        frequency: With a number or a function: an update after every so many epochs.

    Raises:
        ValueError: If it is out of range, or the schedule counts steps.
    """
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise ValueError(f"frequency is a whole number of epochs, at least 1. Received: {frequency!r}.")
    if not isinstance(sparsity, Schedule):
        if not callable(sparsity):
            check_fraction(argument, sparsity)
        times: dict[str, Any] = {"frequency": frequency, "unit": "epochs"}
        return as_schedule(argument, sparsity, lambda level: Constant(level, **times), **times)
    if frequency != 1:
        raise ValueError(
            f"{argument} is a schedule, which says itself how often filters are pruned. Leave frequency={frequency} "
            f"out, and give it to the schedule: {type(sparsity).__name__}(..., frequency={frequency})."
        )
    if sparsity.unit != "epochs":
        raise ValueError(
            f"Filters are pruned between epochs, so {argument} must count epochs: "
            f'{type(sparsity).__name__}(..., unit="epochs", frequency=1). Received: unit="steps".'
        )
    return sparsity


def as_stages(sparsity: ScheduleLike | Sequence[Stage], criterion: AnyChannelCriterion | None) -> tuple[Stage, ...]:
    """Return the stages of a callback.

    Args:
        sparsity: A share, which goes by the one criterion; or stages that have criteria of their own.
        criterion: The criterion; the L2 norm if left out.

    Raises:
        TypeError: If both stages and a criterion are given, or a criterion is none.
        ValueError: If a share is out of range, the shares add up to 1 or to 0, or a criterion needs what is not there.
    """
    if isinstance(sparsity, Sequence) and not isinstance(sparsity, str):
        if criterion is not None or not all(isinstance(stage, Stage) for stage in sparsity):
            raise TypeError(
                "A list must hold stages, such as [Stage(l2_norm, 0.1), Stage(geometric_median_distance, 0.3)], each "
                "with its criterion, and `criterion` must be left out. "
                f"Received: {sparsity!r}, criterion={criterion!r}."
            )
        stages = tuple(sparsity)
    else:
        stages = (Stage(l2_norm if criterion is None else criterion, sparsity),)
    for stage in stages:
        as_channel_criterion(stage.criterion)
    schedules = [stage.schedule for stage in stages]
    if all(isinstance(schedule, Constant) for schedule in schedules):
        check_rates([schedule.value(0) for schedule in schedules])
    return stages


def check_rates(rates: Sequence[float]) -> None:
    """Raise a ValueError if shares that go one after another empty every layer, or prune nothing."""
    total = sum(rates)
    if total >= 1:
        raise ValueError(f"The rates add up to {total:g} and would empty every layer; their sum must be below 1.")
    if total == 0:
        raise ValueError("All rates are 0, so nothing would be pruned. Give a rate above 0, such as 0.4.")


@dataclass(frozen=True)
class Plan:
    """What is due in one `fit`.

    Attributes:
        stages: The criteria, each with its schedule.
        epochs: How many epochs training has when it ends; None if that is not known.
    """

    stages: tuple[tuple[AnyChannelCriterion, Schedule], ...]
    epochs: int | None

    @classmethod
    def of(cls, stages: Sequence[Stage], epochs: int | None, end: float) -> "Plan":
        """Give every schedule an end that needs one, as a fraction of the training, and check all values to come.

        Args:
            stages: The stages of a callback.
            epochs: How many epochs training has when it ends; None if that is not known.
            end: Where a schedule without an `end` ends.

        Raises:
            ValueError: If a value is out of range, or nothing is ever pruned.
        """
        plan = cls(tuple((stage.criterion, _ending(stage.schedule, epochs, end)) for stage in stages), epochs)
        for time in range(1, (epochs or 0) + 1):
            rates = [rate for _, rate in plan.shares(time, last=time == epochs)]
            if time == epochs or sum(rates) >= 1:
                check_rates(rates)
        return plan

    def due(self, time: int) -> bool:
        """Return whether filters are pruned when so many epochs are done; after the last they always are."""
        return time == self.epochs or any(schedule.due(time) for _, schedule in self.stages)

    def shares(self, time: int, last: bool = False) -> list[Share]:
        """Return which share goes by which criterion, as of the last update that was due; zero shares are left out.

        Args:
            time: How many epochs are done.
            last: Whether training ends here, so that an update is due in any case.
        """
        found = []
        for criterion, schedule in self.stages:
            latest = next((t for t in range(time, schedule.begin - 1, -1) if last or schedule.due(t)), None)
            rate = 0.0 if latest is None else check_fraction("sparsity", schedule.value(latest))
            if rate > 0:
                found.append((criterion, rate))
        return found


def _ending(schedule: Schedule, epochs: int | None, end: float) -> Schedule:
    if schedule.end is not None or epochs is None or isinstance(schedule, Constant):
        return schedule
    last = epochs if isinstance(schedule, Function) else round(epochs * end)
    if last <= schedule.begin:
        raise ValueError(
            f"{schedule} begins after {schedule.begin} epochs, but training has {epochs}, and without an `end` it ends "
            f"after {last}. Begin earlier, train longer, or give an `end`."
        )
    return schedule.with_end(last)
