"""The proximal steps against their definition: the minimizer of (x - v)^2 / 2 + step * |x|."""

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfprune.training.proximal import group_factors, soft_threshold

NUMBERS = st.floats(-8, 8, width=32)
STEPS = st.floats(0, 4, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=9), STEPS)
def test_soft_threshold_is_the_closed_form(values, step):
    values = np.array(values, "float32")
    found = soft_threshold(keras.ops.array(values), step).numpy()
    expected = np.sign(values) * np.maximum(np.abs(values) - np.float32(step), 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[np.abs(values) <= np.float32(step)] == 0).all()
    assert not np.signbit(found[(found == 0) & (values != 0)]).any()


@given(NUMBERS, STEPS)
def test_soft_threshold_is_the_minimizer(value, step):
    found = float(soft_threshold(keras.ops.array([value]), step)[0])
    grid = np.append(np.linspace(-8, 8, 1601), 0.0)
    cost = (grid - value) ** 2 / 2 + step * np.abs(grid)
    assert (found - value) ** 2 / 2 + step * abs(found) <= cost.min() + 1e-5


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), STEPS)
def test_group_factors_are_the_closed_form(groups, step):
    groups = np.array(groups, "float32")
    norms = np.sqrt((groups.astype("float64") ** 2).sum(axis=1))
    found = group_factors(keras.ops.array((groups**2).sum(axis=1)), step).numpy()
    safe = np.maximum(norms, 1e-30)
    np.testing.assert_allclose(found, np.maximum(0, 1 - step / safe) * (norms > 0), atol=1e-5)
    np.testing.assert_allclose(found * norms, np.maximum(norms - step, 0), atol=1e-4)


@given(st.tuples(NUMBERS, NUMBERS), STEPS)
def test_group_factors_give_the_minimizer(group, step):
    group = np.array(group)
    found = group * float(group_factors(keras.ops.array([(group**2).sum()]), step)[0])

    def cost(point):
        return ((point - group) ** 2).sum() / 2 + step * np.sqrt((point**2).sum())

    others = found + np.random.default_rng(0).normal(size=(200, 2)) * np.geomspace(1e-3, 8, 200)[:, None]
    assert cost(found) <= min(cost(point) for point in [*others, np.zeros(2), group]) + 1e-5


def test_a_step_of_zero_is_exactly_nothing_and_nan_stays():
    values = np.random.default_rng(0).normal(size=1000).astype("float32")
    assert np.array_equal(soft_threshold(keras.ops.array(values), 0.0).numpy(), values)
    assert (group_factors(keras.ops.array(values**2), 0.0).numpy() == 1).all()
    assert np.isnan(soft_threshold(keras.ops.array([np.nan]), 1.0).numpy()).all()
    assert np.isnan(group_factors(keras.ops.array([np.nan]), 1.0).numpy()).all()
