"""Criteria of single weights against numbers by hand and by definition."""

import numpy as np
import pytest

from tfprune.criteria import LAMP, SNIP, GraSP, Magnitude, OptimalBrainDamage, RandomWeights, SynFlow, Wanda, WeightView


def view(weights, name="kernel", **statistics):
    return WeightView(name, lambda: np.array(weights), statistics={key: np.array(x) for key, x in statistics.items()})


def test_lamp_by_hand_and_by_definition():
    # 9 / 9, 4 / (4 + 9), 1 / (1 + 4 + 9), and nothing for a zero.
    assert LAMP().score(view([[3.0, -2.0], [1.0, 0.0]])).tolist() == [[1.0, 4 / 13], [1 / 14, 0.0]]
    weights = np.random.default_rng(0).integers(-4, 5, (6, 7)).astype(float)  # with many ties
    sums = [[(weights[np.abs(weights) >= abs(w)] ** 2).sum() for w in row] for row in weights]
    np.testing.assert_allclose(LAMP().score(view(weights)), weights**2 / np.array(sums), rtol=1e-12)
    assert LAMP().score(view(np.zeros((2, 2)))).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_products_by_hand():
    weights = [[2.0, -3.0]]
    assert Magnitude().score(view(weights)).tolist() == [[2.0, 3.0]]
    assert SNIP().score(view(weights, gradient=[[0.5, 1.0]])).tolist() == [[1.0, 3.0]]
    assert SynFlow().score(view(weights, synaptic_flow=[[0.5, 1.0]])).tolist() == [[1.0, 3.0]]
    assert GraSP().score(view(weights, hessian_gradient=[[0.5, 1.0]])).tolist() == [[1.0, -3.0]]
    assert OptimalBrainDamage().score(view(weights, squared_gradient=[[0.5, 1.0]])).tolist() == [[1.0, 4.5]]
    assert Wanda().score(view(weights, input_norm=[[0.5, 1.0]])).tolist() == [[1.0, 3.0]]


def test_random_numbers_depend_on_seed_and_name():
    weights = np.zeros((3, 4))
    scores = [RandomWeights(seed).score(view(weights, name)) for seed, name in ((0, "a"), (1, "a"), (0, "b"), (0, "a"))]
    assert np.array_equal(scores[0], scores[3])
    assert len({array.tobytes() for array in scores}) == 3
    many = RandomWeights().score(view(np.zeros(10000)))
    assert abs(many.mean() - 0.5) < 0.01
    assert (0 <= many.min() < 0.01) & (0.99 < many.max() < 1)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "hot"])
def test_temperature_of_grasp_is_above_zero(temperature):
    with pytest.raises(ValueError, match="temperature must be"):
        GraSP(temperature)
