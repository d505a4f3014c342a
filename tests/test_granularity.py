import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.granularity import Channel, prune_lowest

PERCENT = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)
SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=40).map(lambda values: np.array(values, float))


@pytest.mark.parametrize(
    ("size", "sparsity", "count"),
    [(10, 0.4, 4), (100, 0.29, 29), (5, 0.4, 2), (7, 0.4, 2), (3, 0.3, 0), (1, 0.9, 0), (2, 0.99, 1), (8, 0.0, 0)],
)
def test_count_by_hand(size, sparsity, count):
    assert Channel().count(size, sparsity) == count


@given(st.integers(1, 4096), PERCENT)
def test_count_is_the_exact_product_rounded_down(size, sparsity):
    exact = math.floor(size * Fraction(str(sparsity)))
    assert Channel().count(size, sparsity) == min(exact, size - 1)


@pytest.mark.parametrize(("minimum", "count"), [(1, 7), (3, 5), (8, 0), (9, 0)])
def test_min_channels_stay(minimum, count):
    assert Channel(min_channels=minimum).count(8, 0.95) == count


@pytest.mark.parametrize("minimum", [0, -1])
def test_min_channels_below_one_is_refused(minimum):
    with pytest.raises(ValueError, match=f"min_channels must be at least 1.*Received: {minimum}"):
        Channel(min_channels=minimum)


@given(SCORES, PERCENT)
def test_mask_drops_exactly_the_count_and_never_a_better_channel(scores, sparsity):
    keep = Channel().mask(scores, sparsity)
    assert (~keep).sum() == Channel().count(len(scores), sparsity)
    if not keep.all():
        assert scores[~keep].max() <= scores[keep].min()


@given(SCORES, st.data())
def test_of_equal_scores_the_later_goes(scores, data):
    count = data.draw(st.integers(0, len(scores)))
    ranked = sorted(range(len(scores)), key=lambda index: (scores[index], -index))
    assert sorted(np.flatnonzero(~prune_lowest(scores, count)).tolist()) == sorted(ranked[:count])


@given(SCORES, st.data())
def test_pruning_more_prunes_the_same_and_more(scores, data):
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, len(scores))] * 2)))
    assert (prune_lowest(scores, low) >= prune_lowest(scores, high)).all()


@given(SCORES, st.data())
def test_a_monotone_change_of_scores_changes_nothing(scores, data):
    count = data.draw(st.integers(0, len(scores)))
    assert np.array_equal(prune_lowest(scores, count), prune_lowest(np.exp(scores) * 7, count))


def test_any_shape_and_infinite_scores():
    scores = np.array([[np.inf, -np.inf], [0.0, -np.inf]])
    assert prune_lowest(scores, 3).tolist() == [[True, False], [False, False]]
    assert prune_lowest(scores, 1).tolist() == [[True, True], [True, False]]


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match=r"scores are NaN.*clipnorm"):
        Channel().mask(np.array([1.0, np.nan]), 0.5)
