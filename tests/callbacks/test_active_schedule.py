"""Schedules of every kind in the time of a `fit`, and what is refused before time is spent."""

from dataclasses import dataclass

import keras
import pytest

from tfprune.callbacks import GraNet, GroupLasso, MagnitudePruning, RigL, StaticSparsity
from tfprune.callbacks.active_schedule import ActiveSchedule
from tfprune.schedules import Constant, Cosine, Function, Polynomial, Schedule, as_schedule
from tfprune.training.clock import Clock


@dataclass(frozen=True)
class Staircase(Schedule):
    levels: tuple[float, ...] = (0.5, 0.7, 0.8)

    def value(self, t):
        return self.levels[min(t // 100, len(self.levels) - 1)]


def clock(unit="steps", epochs=2, steps=200):
    callback = keras.callbacks.Callback()
    callback.set_params({"epochs": epochs, "steps": steps})
    return Clock(callback, unit)


def updates(schedule, default_end=0.75, **options):
    active = ActiveSchedule("sparsity", schedule, clock(), default_end, **options)
    return {t: active.value(t) for t in range(401) if active.due(t)}


def test_updates_of_every_kind_by_hand():
    # Of 400 steps three quarters are 300; a function is asked until the end.
    assert updates(Constant(0.5)) == {0: 0.5, 100: 0.5, 200: 0.5, 300: 0.5}
    assert updates(Polynomial(0.9, power=1)) == pytest.approx({0: 0, 100: 0.3, 200: 0.6, 300: 0.9})
    assert updates(Cosine(0.0, final=0.8)) == pytest.approx({0: 0, 100: 0.2, 200: 0.6, 300: 0.8})
    assert updates(Staircase()) == {0: 0.5, 100: 0.7, 200: 0.8, 300: 0.8}
    assert updates(Function(lambda t: t / 1000, frequency=150)) == {0: 0.0, 150: 0.15, 300: 0.3, 400: 0.4}


def test_a_function_needs_no_known_length():
    active = ActiveSchedule("sparsity", Function(lambda t: 0.5), clock(steps=None), 0.75)
    assert (active.end, active.final, active.due(10**6)) == (None, None, True)
    with pytest.raises(ValueError, match="cannot tell when to end"):
        ActiveSchedule("sparsity", Staircase(), clock(steps=None), 0.75)


@pytest.mark.parametrize("wrong", [1.0, -0.1, float("nan"), None, True])
def test_values_out_of_range_name_the_argument_before_training(wrong):
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\) at all times. Function gives .* at 300 steps"):
        ActiveSchedule("drop", Function(lambda t: wrong if t == 300 else 0.1), clock())


def test_a_sparsity_that_falls_is_refused_before_training_where_times_are_known():
    falling = Cosine(0.8)
    with pytest.raises(ValueError, match=r"sparsity falls from 0.8 to .* at 100 steps.*do not come back"):
        ActiveSchedule("sparsity", falling, clock(), 0.75, rises=True)
    assert ActiveSchedule("drop", falling, clock(), 0.75).value(300) == 0.0
    unknown = ActiveSchedule("sparsity", Function(lambda t: 0.5 - t / 1000), clock(steps=None), rises=True)
    assert unknown.value(0) == 0.5
    with pytest.raises(ValueError, match=r"sparsity falls from 0.5 to 0.4 at 100 steps"):
        unknown.value(100)


def test_a_strength_may_be_above_1():
    assert ActiveSchedule("strength", Function(lambda t: 2.0), clock(), limit=float("inf")).value(7) == 2.0


@pytest.mark.parametrize("wrong", [80, -1, "0.5", None, True, Polynomial, float("nan")])
@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (MagnitudePruning, "sparsity"),
        (GraNet, "sparsity"),
        (lambda value: RigL(0.5, drop=value), "drop"),
        (lambda value: GraNet(0.5, drop=value), "drop"),
        (StaticSparsity, "sparsity"),
    ],
)
def test_what_is_no_schedule_is_refused_by_the_name_of_the_argument(make, argument, wrong):
    with pytest.raises(ValueError, match=rf"^{argument} (must be|is the fraction)"):
        make(wrong)


def test_numbers_and_functions_stand_for_schedules():
    def half(t):
        return 0.5

    assert as_schedule("sparsity", half, frequency=7) == Function(half, frequency=7)
    assert as_schedule("sparsity", 0.5) == Constant(0.5)
    assert MagnitudePruning(0.9).schedule == Polynomial(0.9)
    assert MagnitudePruning(Staircase()).schedule == Staircase()
    assert RigL(0.9, drop=0.2).schedule == Cosine(0.2)
    assert GraNet(Polynomial(0.9, frequency=7), drop=half).drop == Function(half, frequency=7)
    assert GroupLasso(half).strength == Function(half)
