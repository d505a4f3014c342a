"""Searching for, and filling, what a budget allows."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain, densely_connected, preactivation, randomize, residual

import tfprune
from tfprune import Budget, Widths
from tfprune.granularity import Channel
from tfprune.shrinking.budget import Steps, fill, load, measure, search

L = keras.layers


class TestSearch:
    @given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=300))
    def test_finds_what_trying_all_would(self, loads):
        loads = sorted(loads)
        fitting = [number for number, value in enumerate(loads) if value <= 1]
        assert search(loads.__getitem__, len(loads) - 1) == (fitting[-1] if fitting else None)

    @pytest.mark.parametrize("power", [1, 2])
    def test_takes_few_measurements_where_it_may_stop_early(self, power):
        asked = []

        def load_of(number):
            asked.append(number)
            return (number / 600_000) ** power

        found = search(load_of, 1_000_000, close=0.97, tries=6)
        assert 0.97 <= (found / 600_000) ** power <= 1
        assert len(asked) <= 7

    def test_stops_after_its_tries_within_the_limit(self):
        asked = []
        found = search(lambda number: asked.append(number) or (0.1 if number < 999 else 1.1), 1000, tries=3)
        assert found < 999
        assert len(asked) == 5


class TestFill:
    STEPS = Steps(np.array([1, 1]), np.array([0, 1, 0, 1, 0]), np.array([2, 3, 3, 4, 4]))

    def test_after_some_steps(self):
        assert [self.STEPS.after(count).tolist() for count in (0, 1, 2, 5)] == [[1, 1], [2, 1], [2, 3], [4, 4]]

    def test_a_group_that_does_not_fit_stays_and_others_go_on(self):
        # Costs 10 * first + second: (2, 3) is 23, (3, 3) 33 and too much, (2, 4) 24.
        assert fill(self.STEPS, lambda widths: (10 * widths[0] + widths[1]) / 24).tolist() == [2, 4]

    def test_a_group_may_be_allowed_one_extra_step(self):
        steps = Steps(np.array([1, 1]), np.array([0, 1, 1, 1]), np.array([2, 2, 3, 4]))
        assert fill(steps, lambda widths: (10 * widths[0] + widths[1]) / 19).tolist() == [1, 4]
        assert fill(steps, lambda widths: (10 * widths[0] + widths[1]) / 19, most_extra=1).tolist() == [1, 2]

    def test_nothing_fits(self):
        assert fill(self.STEPS, lambda widths: 2.0) is None


def test_the_load_is_that_of_the_limit_which_is_used_most():
    assert load({"macs": 50, "parameters": 30}, {"macs": 100, "parameters": 40}) == 0.75


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [chain, residual, preactivation, densely_connected])
@pytest.mark.parametrize("budget", [Budget(macs=0.4), Budget(parameters=0.6), Budget(macs=0.5, weight_bytes=0.4)])
@pytest.mark.parametrize("ranking", ["local", "global"])
def test_no_group_could_keep_one_channel_more(make, budget, ranking):
    model = randomize(make())
    limits = budget.absolute(measure(model))
    small = tfprune.prune_channels(model, budget=budget, ranking=ranking)
    assert load(measure(small), limits) <= 1
    widths = tfprune.choose_widths(model, budget=budget, ranking=ranking)
    for name, width in Widths.of(model).items():
        if widths[name] < width:
            wider = tfprune.prune_channels(model, Widths({**widths, name: widths[name] + 1}))
            assert load(measure(wider), limits) > 1, name


def test_steps_of_eight():
    model = randomize(chain((64, 48)))
    granularity = Channel(min_channels=8, round_to=8)
    widths = tfprune.choose_widths(model, budget=Budget(macs=0.5), granularity=granularity)
    assert all(width % 8 == 0 for width in widths.values())
    limit = 0.5 * measure(model)["macs"]
    assert 0.8 * limit < measure(tfprune.prune_channels(model, widths))["macs"] <= limit
    for name in widths:
        wider = Widths({**widths, name: widths[name] + 8})
        assert measure(tfprune.prune_channels(model, wider))["macs"] > limit


def test_parts_of_a_split_are_counted_as_they_come_out():
    """The channels of the first half are the least important; a part keeps one channel, which must be counted."""
    inputs = keras.Input((2,))
    halves = keras.ops.split(L.Dense(8, name="wide", use_bias=False)(inputs), 2, axis=-1)
    parts = [L.Dense(3, name=f"reader_{each}")(L.ReLU()(half)) for each, half in enumerate(halves)]
    model = randomize(keras.Model(inputs, L.Dense(1)(L.Concatenate()(parts))))
    model.get_layer("wide").kernel.assign(np.array([[0.1] * 4 + [1.0] * 4] * 2))
    for parameters in range(23, model.count_params() + 1, 3):  # some are met exactly, and some are not
        small = tfprune.prune_channels(
            model, budget=Budget(parameters=parameters), exclude=lambda layer: layer.name != "wide"
        )
        # A channel costs 2 + 3, and 13 more parameters stay in any case: as many as fit, at least one of each half.
        assert small.count_params() == 13 + 5 * ((parameters - 13) // 5)


def test_constants_that_become_biases_are_counted():
    layers = [L.Dense(8, "sigmoid", name="waking"), L.Dense(6, use_bias=False, name="folding"), L.Dense(2)]
    model = randomize(keras.Sequential([keras.Input((4,)), *layers]))
    for parameters in range(30, model.count_params(), 10):
        small = tfprune.prune_channels(model, budget=Budget(parameters=parameters))
        assert small.count_params() <= parameters


def test_limits_on_what_is_not_fixed_are_met_where_they_can_be_counted():
    model = randomize(
        keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(16, 3), L.GlobalAveragePooling2D(), L.Dense(2)])
    )
    small = tfprune.prune_channels(model, budget=Budget(parameters=0.5))
    assert 0.5 * 482 - 30 < small.count_params() <= 0.5 * 482  # a filter has 27 weights and a bias, and is read by two
    with pytest.raises(ValueError, match="fixed input shape"):
        tfprune.prune_channels(model, budget=Budget(macs=0.5))
