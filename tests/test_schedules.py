import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.schedules import Constant, Cosine, Exponential, Polynomial

LEVELS = st.integers(0, 99).map(lambda percent: percent / 100)
TIMES = st.integers(0, 3000)


def test_constant_is_the_same_at_any_time_and_due_for_ever():
    schedule = Constant(0.3)
    assert [schedule.value(t) for t in (0, 7, 10**9)] == [0.3] * 3
    assert [t for t in range(350) if schedule.due(t)] == [0, 100, 200, 300]
    assert schedule.due(10**9)


def test_due_between_begin_and_end():
    schedule = Constant(0.3, begin=5, end=20, frequency=7, unit="epochs")
    assert [t for t in range(40) if schedule.due(t)] == [5, 12, 19]
    assert Constant(0.3, begin=5, end=19, frequency=7).due(19)


@pytest.mark.parametrize(("t", "value"), [(0, 0.0), (100, 0.0), (200, 0.4625), (300, 0.7), (400, 0.7875), (500, 0.8)])
def test_cubic_at_quarter_points(t, value):
    # 0.8 * (1 - (3/4)**3) = 0.8 * 37/64, 0.8 * 7/8, 0.8 * 63/64
    assert Polynomial(0.8, begin=100, end=500).value(t) == pytest.approx(value, abs=1e-15)


def test_polynomial_from_another_start_and_as_a_line():
    assert Polynomial(0.9, initial=0.5, end=100).value(50) == pytest.approx(0.85)
    assert Polynomial(0.9, initial=0.5, power=1, end=100).value(50) == pytest.approx(0.7)


def test_polynomial_is_due_at_its_end_too():
    schedule = Polynomial(0.8, begin=10, end=315, frequency=100)
    assert [t for t in range(500) if schedule.due(t)] == [10, 110, 210, 310, 315]
    assert not Cosine(0.8, begin=10, end=315, frequency=100).due(315)
    assert [t for t in range(250) if Polynomial(0.8).due(t)] == [0, 100, 200]


@pytest.mark.parametrize(
    ("t", "value"), [(0, 0.3), (50, 0.3), (125, 0.15 + 0.15 * math.sqrt(0.5)), (200, 0.15), (350, 0.0), (999, 0.0)]
)
def test_cosine_by_hand(t, value):
    assert Cosine(0.3, begin=50, end=350).value(t) == pytest.approx(value, abs=1e-15)


def test_cosine_reaches_granets_floor():
    schedule = Cosine(0.5, final=0.005, end=1000)
    assert [schedule.value(t) for t in (0, 500, 1000)] == pytest.approx([0.5, 0.2525, 0.005])


@given(LEVELS, LEVELS, TIMES, TIMES)
def test_values_move_one_way_between_their_bounds(first, second, early, late):
    low, high = sorted((first, second))
    early, late = sorted((early, late))
    rising, falling = Polynomial(high, initial=low, begin=100, end=2000), Cosine(high, final=low, begin=100, end=2000)
    assert low - 1e-12 <= rising.value(early) <= rising.value(late) + 1e-12 <= high + 2e-12
    assert low - 1e-12 <= falling.value(late) <= falling.value(early) + 1e-12 <= high + 2e-12
    assert (rising.value(2000), falling.value(2000)) == (high, low)
    growing = Exponential(high, initial=low, begin=100, end=2000)
    assert low - 1e-12 <= growing.value(early) <= growing.value(late) + 1e-12 <= high + 2e-12
    assert (growing.value(2000), growing.value(3000)) == (high, high)


@pytest.mark.parametrize("schedule", [Cosine(0.3, unit="epochs"), Polynomial(0.3), Exponential(0.3)])
def test_no_end_is_named_when_the_value_needs_it(schedule):
    with pytest.raises(ValueError, match=rf"{type(schedule).__name__} needs.*end=None.*with_end.*{schedule.unit}"):
        schedule.value(3)
    assert schedule.with_end(10).value(10) in (0.0, 0.3)


def test_with_end_fills_only_a_gap():
    assert Constant(0.3, begin=4).with_end(9) == Constant(0.3, begin=4, end=9)
    assert Cosine(0.3, end=5).with_end(9) == Cosine(0.3, end=5)
    with pytest.raises(ValueError, match="begin=4, end=4"):
        Constant(0.3, begin=4).with_end(4)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(0.3, unit="epochs"),
        Cosine(0.3, 0.005, begin=2, end=np.int64(9)),
        Polynomial(np.float32(0.9), initial=0.1, power=2, frequency=np.int32(7)),
        Exponential(0.9, initial=0.1, rate=2, unit="epochs"),
    ],
)
def test_config_restores_the_schedule_from_json(schedule):
    assert type(schedule)(**json.loads(json.dumps(schedule.get_config()))) == schedule


@pytest.mark.parametrize("wrong", [1.0, 1.5, -0.1, math.nan, True, "0.5", None])
def test_values_outside_zero_to_one_are_refused(wrong):
    for name, make in {
        "level": lambda: (Constant(wrong), Cosine(wrong)),
        "final": lambda: (Polynomial(wrong), Exponential(wrong)),
        "initial": lambda: (Polynomial(0.5, initial=wrong), Exponential(0.5, initial=wrong)),
    }.items():
        with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, 1\)"):
            make()
    with pytest.raises(ValueError, match="level must be"):
        Cosine(wrong)
    with pytest.raises(ValueError, match="final must be"):
        Cosine(0.5, final=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": -1}, "begin must be an integer of at least 0. Received: -1"),
        ({"begin": 0.5}, "begin must be an integer"),
        ({"frequency": 0}, "frequency must be an integer of at least 1. Received: 0"),
        ({"frequency": True}, "frequency must be an integer of at least 1. Received: True"),
        ({"end": -1}, "end must be an integer of at least 1. Received: -1"),
        ({"begin": 8, "end": 8}, "end must be later than begin. Received: begin=8, end=8"),
        ({"unit": "batches"}, 'unit must be "steps" or "epochs". Received: \'batches\''),
    ],
)
def test_wrong_times_are_refused(options, message):
    for make in (Constant, Cosine, Polynomial, Exponential):
        with pytest.raises(ValueError, match=message):
            make(0.5, **options)


def test_polynomial_neither_falls_nor_jumps():
    with pytest.raises(ValueError, match=r"initial must not be above final.*initial=0.6, final=0.5"):
        Polynomial(0.5, initial=0.6)
    for power in (0, -1, math.inf, math.nan, True):
        with pytest.raises(ValueError, match="power must be a number above 0"):
            Polynomial(0.5, power=power)


def test_exponential_goes_through_the_points_of_the_paper():
    """a exp(-k t) + b through (0, 0.1), three quarters of the way at an eighth of the time, and (the end, 0.5)."""
    schedule = Exponential(0.5, initial=0.1, begin=20, end=820)
    assert [schedule.value(t) for t in (0, 20, 120, 820, 900)] == pytest.approx([0.1, 0.1, 0.4, 0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize(("initial", "final"), [(0.0, 0.3), (0.1, 0.4)])
def test_exponential_is_the_curve_that_solves_the_equations_of_the_paper(initial, final):
    """a exp(-k t) + b with a and b from the ends, and k found by halving so that the third point lies on it."""
    epochs, low, high = 100, 1e-3, 10.0

    def curve(k, t):
        a = (initial - final) / (1 - math.exp(-k * epochs))
        return a * math.exp(-k * t) + initial - a

    for _ in range(80):
        middle = (low + high) / 2
        short = curve(middle, epochs / 8) < initial + 0.75 * (final - initial)
        low, high = (middle, high) if short else (low, middle)
    schedule = Exponential(final, initial=initial, end=epochs, unit="epochs", frequency=1)
    found = [schedule.value(t) for t in range(epochs + 1)]
    np.testing.assert_allclose(found, [curve(low, t) for t in range(epochs + 1)], atol=2e-5)


def test_what_is_left_shrinks_by_the_same_factor():
    schedule = Exponential(0.8, end=100, rate=2.0)
    values = np.array([schedule.value(t) for t in range(101)])
    steps = np.diff(values)
    np.testing.assert_allclose(steps[1:] / steps[:-1], math.exp(-2 / 100), rtol=1e-9)
    assert Exponential(0.8, end=100, rate=1e-9).value(25) == pytest.approx(0.2)  # a straight line


def test_exponential_is_due_at_its_end_and_neither_falls_nor_stands():
    assert [t for t in range(50) if Exponential(0.5, end=35, frequency=10).due(t)] == [0, 10, 20, 30, 35]
    with pytest.raises(ValueError, match=r"initial must not be above final.*initial=0.6, final=0.5"):
        Exponential(0.5, initial=0.6)
    for rate in (0, -1, math.inf, math.nan, True, "1"):
        with pytest.raises(ValueError, match="rate must be a number above 0"):
            Exponential(0.5, rate=rate)
