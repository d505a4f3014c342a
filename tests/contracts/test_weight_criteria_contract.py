"""What every criterion of single weights promises. A new one adds one row to ROWS and inherits all of it."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest

import tfprune
from tfprune.criteria import (
    LAMP,
    SNIP,
    GraSP,
    Magnitude,
    OptimalBrainDamage,
    RandomWeights,
    SynFlow,
    Wanda,
    WeightCriterion,
    WeightView,
)
from tfprune.masking import recorded_mask
from tfprune.statistics import Statistics

L = keras.layers


@dataclass(frozen=True)
class Row:
    """One criterion.

    Attributes:
        criterion: The criterion.
        reads_weights: Whether its scores depend on the weights.
        zeros_go_first: Whether no weight scores below one that is zero.
    """

    criterion: WeightCriterion
    reads_weights: bool = True
    zeros_go_first: bool = True


ROWS = [
    Row(Magnitude()),
    Row(LAMP()),
    Row(SNIP()),
    Row(SynFlow()),
    Row(OptimalBrainDamage()),
    Row(Wanda()),
    Row(GraSP(), zeros_go_first=False),  # a weight that hinders the gradient scores below zero
    Row(RandomWeights(), reads_weights=False, zeros_go_first=False),
]


@pytest.fixture(params=ROWS, ids=lambda row: type(row.criterion).__name__)
def row(request):
    return request.param


@pytest.fixture
def weights():
    return np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def viewed(row, weights, scale=1.0):
    random = np.random.default_rng(1)
    statistics = {name: scale * random.uniform(0.5, 2.0, weights.shape) for name in row.criterion.needs}
    return WeightView("kernel", lambda: weights, statistics=statistics)


def test_gives_one_finite_score_per_weight_the_same_each_time(row, weights):
    before = weights.copy()
    scores = row.criterion.score(viewed(row, weights))
    assert scores.shape == weights.shape
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 1
    assert np.array_equal(scores, row.criterion.score(viewed(row, weights)))
    assert np.array_equal(weights, before)


def test_weights_that_change_places_take_their_scores_along(row, weights):
    if not row.reads_weights:
        return
    order = np.random.default_rng(2).permutation(weights.size)
    view = viewed(row, weights)
    moved = WeightView(
        "kernel",
        lambda: weights.ravel()[order].reshape(weights.shape),
        statistics={name: array.ravel()[order].reshape(array.shape) for name, array in view.statistics.items()},
    )
    scores = row.criterion.score(view)
    np.testing.assert_allclose(row.criterion.score(moved).ravel(), scores.ravel()[order], rtol=1e-12)


def test_order_does_not_depend_on_the_scale_of_weights_or_statistics(row, weights):
    order = np.argsort(row.criterion.score(viewed(row, weights)), axis=None)
    for factor, scale in ((8.0, 1.0), (1.0, 8.0), (1e-3, 1e3)):
        scores = row.criterion.score(viewed(row, weights * np.float32(factor), scale))
        assert np.array_equal(np.argsort(scores, axis=None), order)


def test_half_precision_does_not_overflow(row):
    weights = np.linspace(30000, 60000, 6, dtype="float16").reshape(2, 3)
    assert np.isfinite(row.criterion.score(viewed(row, weights, 30000.0))).all()


def test_zeros_go_first(row, weights):
    weights[1, 2] = 0.0
    scores = row.criterion.score(viewed(row, weights))
    assert (scores.min() == scores[1, 2]) == row.zeros_go_first


def test_prunes_as_many_weights_as_are_asked_for(row):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), L.Dense(10, name="a"), L.Dense(8, name="b"), L.Dense(2, name="c")])
    random = np.random.default_rng(1)
    arrays = {name: {w.path: random.uniform(0.5, 2, w.shape) for w in model.weights} for name in row.criterion.needs}
    data = Statistics(8, arrays) if arrays and "synaptic_flow" not in arrays else None
    tfprune.prune_weights(model, 0.5, row.criterion, data=data, rounds=1)
    gone = [int((~recorded_mask(layer.kernel)).sum()) for layer in model.layers]
    assert sum(gone) == (60 + 80 + 16) // 2
    if row.criterion.scope != "global":
        assert gone == [30, 40, 8]
    if row.criterion.scope == "output":
        assert [(~recorded_mask(layer.kernel)).sum(axis=0).tolist() for layer in model.layers] == [
            [3] * 10,
            [5] * 8,
            [4] * 2,
        ]
