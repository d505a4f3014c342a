import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.growth import drop_and_grow, drop_by_sign, grow

NUMBERS = st.integers(-3, 3)


@st.composite
def layers(draw):
    """A mask, and two arrays of few different numbers, so with many ties."""
    size = draw(st.integers(1, 40))
    mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    first, second = (draw(st.lists(NUMBERS, min_size=size, max_size=size)) for _ in range(2))
    return np.array(mask), np.array(first, float), np.array(second, float)


def test_drop_and_grow_by_hand():
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    importance = np.array([[5, 1, 2], [4, 9, 9], [9, 9, 3]], float)
    gain = np.array([[9, 0, 9], [9, 3, 1], [2, 0, 9]], float)
    # The three least important, at 1, 2 and 8, go. Then 2 and 8 come back at once, and 4 is new.
    kept, after = drop_and_grow(mask, importance, gain, 3)
    assert np.flatnonzero(kept).tolist() == [0, 3]
    assert np.flatnonzero(after).tolist() == [0, 2, 3, 4, 8]
    assert np.flatnonzero(after & ~mask).tolist() == [4]


def test_ties_drop_the_later_and_grow_the_earlier():
    mask = np.array([1, 1, 1, 0, 0, 0], bool)
    kept, after = drop_and_grow(mask, np.ones(6), np.array([0.0, 0, 0, 1, 1, 1]), 2)
    assert kept.tolist() == [True, False, False, False, False, False]
    assert after.tolist() == [True, False, False, True, True, False]
    # Equal gains everywhere: the first position outside kept is the one that was just dropped.
    assert drop_and_grow(mask, np.ones(6), np.zeros(6), 1).mask.tolist() == mask.tolist()


@given(layers(), st.data())
def test_drop_and_grow_is_the_naive_algorithm(layer, data):
    mask, importance, gain = layer
    count = data.draw(st.integers(0, int(mask.sum())))
    kept, after = drop_and_grow(mask, importance, gain, count)
    live = sorted(np.flatnonzero(mask), key=lambda index: (importance[index], -index))
    assert set(np.flatnonzero(kept)) == set(live[count:])
    free = sorted(np.flatnonzero(~kept), key=lambda index: (-gain[index], index))
    assert set(np.flatnonzero(after)) == set(live[count:]) | set(free[:count])
    assert after.sum() == mask.sum()
    assert (kept <= (mask & after)).all()
    assert (after & ~kept).sum() == count


@given(layers())
def test_all_may_go_and_none(layer):
    mask, importance, gain = layer
    assert not drop_and_grow(mask, importance, gain, int(mask.sum())).kept.any()
    assert drop_and_grow(mask, importance, gain, 0).mask.tolist() == mask.tolist()


def test_arguments_stay_as_they_are():
    mask, importance, gain = np.array([True, True, False]), np.array([1.0, 2.0, 0.0]), np.array([0.0, 0.0, 1.0])
    drop_and_grow(mask, importance, gain, 1)
    grow(mask, gain, 1)
    drop_by_sign(importance, mask, 0.5)
    assert mask.tolist() == [True, True, False]
    assert (importance.tolist(), gain.tolist()) == ([1.0, 2.0, 0.0], [0.0, 0.0, 1.0])


def test_only_scores_that_are_needed_must_be_finite():
    mask = np.array([True, True, False])
    kept, after = drop_and_grow(mask, np.array([1.0, 2.0, np.nan]), np.array([0.5, np.inf, 1.0]), 1)
    assert (kept.tolist(), after.tolist()) == ([False, True, False], [False, True, True])


def test_drop_by_sign_by_hand():
    weights = np.array([[0.1, 0.2, 0.3, 0.4], [-0.1, -0.2, -0.3, 0.0], [0.05, -0.05, 0.0, 0.5]])
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]], bool)
    # Five positive: 2 go. Three negative: floor(1.2) = 1 goes. The live zero goes.
    kept = drop_by_sign(weights, mask, 0.4)
    assert kept.tolist() == [[False, False, True, True], [False, True, True, False], [False, False, False, True]]
    assert (weights[drop_by_sign(weights, mask, 0.0)] != 0).all()
    assert not drop_by_sign(weights, mask, 1.0).any()


def test_drop_by_sign_ties_and_exact_counts():
    weights = np.r_[np.full(100, 0.5), np.full(100, -0.5)]
    kept = drop_by_sign(weights, np.ones(200, bool), 0.29)
    assert np.flatnonzero(~kept).tolist() == [*range(71, 100), *range(171, 200)]


@given(layers(), st.integers(0, 100))
def test_drop_by_sign_counts_each_sign_apart(layer, percent):
    mask, weights, gain = layer
    kept = drop_by_sign(weights, mask, percent / 100)
    for sign in (1, -1):
        side = mask & (np.sign(weights) == sign)
        gone = np.abs(weights[side & ~kept])
        assert gone.size == side.sum() * percent // 100
        assert gone.size == 0 or not kept[side].any() or gone.max() <= np.abs(weights[side & kept]).min()
    assert not (kept & (weights == 0)).any()
    assert (kept <= mask).all()
    assert grow(kept, gain, int(mask.sum() - kept.sum())).sum() == mask.sum()


MASK = np.array([True, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_and_grow(MASK, np.ones(2), np.ones(3), 1), r"importance must have the shape.*\(3,\).*\(2,\)"),
        (lambda: drop_and_grow(MASK, np.ones(3), np.ones(2), 1), r"gain must have the shape.*\(3,\).*\(2,\)"),
        (lambda: drop_by_sign(np.ones(2), MASK, 0.3), r"weights must have the shape.*\(3,\).*\(2,\)"),
        (lambda: drop_and_grow(MASK * 1.0, np.ones(3), np.ones(3), 1), r"dtype bool.*float64.*astype"),
        (lambda: drop_and_grow(MASK, np.array([1, np.nan, 0]), np.ones(3), 1), "importance is NaN .* 1 of the 2 live"),
        (lambda: drop_and_grow(MASK, np.array([1, np.inf, 0]), np.ones(3), 1), "importance is NaN or infinite"),
        (lambda: drop_and_grow(MASK, np.ones(3), np.full(3, np.nan), 1), "gain is NaN .* 2 of the 2 positions outside"),
        (lambda: drop_by_sign(np.full(3, np.nan), MASK, 0.3), "weights is NaN .* 2 of the 2 live.*clipnorm"),
        (lambda: drop_and_grow(MASK, np.ones(3), np.ones(3), 3), "between 0 and the number of live weights, 2.*: 3"),
        (lambda: drop_and_grow(MASK, np.ones(3), np.ones(3), -1), "between 0 and .*: -1"),
        (lambda: grow(MASK, np.ones(3), 2), "between 0 and the 1 positions outside kept. Received: 2"),
        (lambda: grow(MASK, np.ones(3), -1), "between 0 and .*: -1"),
        (lambda: drop_by_sign(np.ones(3), MASK, 1.1), r"fraction must be in \[0, 1\]. Received: 1.1"),
        (lambda: drop_by_sign(np.ones(3), MASK, math.nan), r"fraction must be in \[0, 1\]"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_two_million_weights_are_quick():
    draw = np.random.default_rng(0)
    weights, gain = draw.standard_normal((2, 1000, 2000), "float32")
    mask = draw.random(weights.shape) < 0.5
    importance, gain, seconds = np.abs(weights), np.abs(gain), []
    for _ in range(3):
        start = time.process_time()
        drop_and_grow(mask, importance, gain, 300_000)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.15  # sorting the live and then the other weights would take longer than that alone
