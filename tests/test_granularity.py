import math
from fractions import Fraction

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfprune
from tfprune.callbacks import FPGM, FilterPruning, MagnitudePruning, SoftFilterPruning
from tfprune.granularity import (
    Block,
    Channel,
    Granularity,
    NofM,
    Unstructured,
    check_granularity,
    floor_share,
    prune_lowest,
)

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


@pytest.mark.parametrize(
    ("size", "sparsity", "stay"),
    [(64, 0.34, 48), (64, 0.5, 32), (17, 0.5, 16), (16, 0.5, 8), (15, 0.5, 8), (8, 0.5, 4), (8, 0.4, 8), (7, 0.5, 4)],
)
def test_automatic_steps_by_hand(size, sparsity, stay):
    assert size - Channel(round_to="auto").count(size, sparsity) == stay


@given(st.integers(1, 4096), PERCENT)
def test_automatic_steps_never_take_more_than_exact_counts(size, sparsity):
    exact, count = (Channel(round_to=step).count(size, sparsity) for step in (1, "auto"))
    step = 8 if size >= 16 else 4 if size >= 8 else 1
    assert exact - step < count <= exact or count == 0
    assert count == 0 or (size - count) % step == 0


@pytest.mark.parametrize("step", [0, -8, "even"])
def test_a_step_that_is_none_is_refused(step):
    with pytest.raises(ValueError, match=f'round_to must be at least 1.*or "auto". Received: {step!r}'):
        Channel(round_to=step)


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


@given(SCORES, st.data())
def test_prune_lowest_is_a_stable_sort_with_infinities_and_signed_zeros(scores, data):
    scores = np.choose((scores + 3).astype(int), [-np.inf, -1.0, -0.0, 0.0, 0.0, 2.0, np.inf])
    count = data.draw(st.integers(0, scores.size))
    latest_first = scores.size - 1 - np.argsort(scores[::-1], kind="stable")
    assert set(np.flatnonzero(~prune_lowest(scores, count))) == set(latest_first[:count])


def test_prune_lowest_of_nothing_and_of_integers():
    assert prune_lowest(np.empty((0, 3)), 0).shape == (0, 3)
    assert prune_lowest(np.array([2, 1, 1]), 2).tolist() == [True, False, False]


def test_nan_has_no_rank():
    with pytest.raises(ValueError, match=r"scores are NaN.*clipnorm"):
        Channel().mask(np.array([1.0, np.nan]), 0.5)


KERNELS = (
    st.lists(st.integers(1, 9), min_size=2, max_size=4)
    .map(tuple)
    .flatmap(
        lambda shape: st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).integers(-3, 4, shape).astype("float32")
        )
    )
)
AXES = st.sampled_from([-2, -1])


@given(st.integers(0, 10**6), PERCENT)
def test_floor_share_is_the_exact_product_rounded_down(size, fraction):
    assert floor_share(size, fraction) == math.floor(size * Fraction(str(fraction)))


@given(KERNELS, PERCENT, AXES)
def test_unstructured_is_an_exact_count_of_weights(scores, sparsity, axis):
    keep = Unstructured().mask(scores, sparsity, axis)
    assert (~keep).sum() == floor_share(scores.size, sparsity)
    assert np.array_equal(keep, prune_lowest(scores, floor_share(scores.size, sparsity)))


def test_weights_that_must_stay_stay():
    scores = np.array([[np.inf, 1.0], [np.inf, np.inf]])
    assert Unstructured().mask(scores, 0.75).tolist() == [[True, False], [True, True]]
    assert Block((1, 2)).mask(scores, 0.9).tolist() == [[True, True], [True, True]]
    assert NofM(1, 2).mask(scores, 0.5).tolist() == [[True, False], [True, True]]


def test_blocks_by_hand():
    scores = np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 1.0], [7.0, 5.0, 6.0]])
    assert Block((2, 2)).units(scores).tolist() == [[2.5, 5.0], [6.0, 6.0]]
    assert Block((2, 2)).mask(scores, 0.5).tolist() == [[False, False, False]] * 2 + [[True, True, True]]
    assert Block((3, 1)).units(scores).tolist() == [[11 / 3, 11 / 3, 16 / 3]]
    assert Block((3, 1)).units(scores, axis=-1).tolist() == [[4.0], [8 / 3], [6.0]]
    assert Block((5, 7)).units(scores).shape == (1, 1)


@given(KERNELS, PERCENT, AXES, st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_blocks_are_the_naive_loop(scores, sparsity, axis, shape):
    block = Block(shape)
    rows, columns = shape if axis == -2 else shape[::-1]
    height, width = scores.shape[-2:]
    corners = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    units = np.stack([scores[..., y : y + rows, x : x + columns].mean((-2, -1), np.float64) for y, x in corners], -1)
    found = block.units(scores, axis)
    assert found.ndim == scores.ndim
    assert np.allclose(found.reshape(units.shape), units)
    keep = block.mask(scores, sparsity, axis)
    whole = np.stack([keep[..., y : y + rows, x : x + columns].all((-2, -1)) for y, x in corners], -1)
    some = np.stack([keep[..., y : y + rows, x : x + columns].any((-2, -1)) for y, x in corners], -1)
    assert np.array_equal(whole, some)
    assert (~whole).sum() == floor_share(whole.size, sparsity)


@pytest.mark.parametrize("shape", [(0, 4), (4, -1), (4,), (1, 2, 3), 4, (1.5, 2), None])
def test_block_shapes_that_mean_nothing_are_refused(shape):
    with pytest.raises(ValueError, match=r"two integers of at least 1, such as \(4, 1\)"):
        Block(shape)


def test_blocks_need_an_input_and_an_output_axis():
    with pytest.raises(ValueError, match=r"Blocks lie in the last two axes.*\(8,\).*Unstructured"):
        Block((4, 1)).mask(np.ones(8), 0.5)
    with pytest.raises(ValueError, match="axis=0"):
        Block((4, 1)).mask(np.ones((8, 8)), 0.5, axis=0)


def test_n_of_m_by_hand():
    scores = np.array([[0.1, 0.4], [0.3, 0.4], [0.2, 0.4], [0.4, 0.4], [0.0, 9.0]])
    inf = np.inf
    assert NofM(2, 4).units(scores).tolist() == [[0.1, inf], [inf, inf], [0.2, 0.4], [inf, 0.4], [inf, inf]]
    assert NofM(2, 3).units(scores).tolist() == [[0.1, inf], [inf, inf], [inf, 0.4], [inf, inf], [inf, inf]]
    assert (~NofM(2, 4).mask(scores, 0.25)).sum() == 2
    assert NofM(2, 4).mask(scores, 0.5).sum() == 6


@st.composite
def patterns(draw):
    m = draw(st.integers(2, 6))
    return NofM(draw(st.integers(1, m - 1)), m)


@given(KERNELS, AXES, patterns())
def test_n_of_m_holds_at_its_own_sparsity(scores, axis, pattern):
    keep = np.moveaxis(pattern.mask(scores, 1 - pattern.n / pattern.m, axis), axis, -1)
    inputs = np.moveaxis(scores, axis, -1)
    for start in range(0, keep.shape[-1], pattern.m):
        group, values = keep[..., start : start + pattern.m], inputs[..., start : start + pattern.m]
        assert (group.sum(-1) == min(pattern.n, group.shape[-1])).all()
        for kept, row in zip(group.reshape(-1, group.shape[-1]), values.reshape(-1, group.shape[-1]), strict=True):
            assert np.array_equal(kept, prune_lowest(row, row.size - kept.sum()))


@given(KERNELS, AXES, patterns(), PERCENT)
def test_n_of_m_below_its_sparsity_prunes_only_candidates(scores, axis, pattern, part):
    sparsity = part * (1 - pattern.n / pattern.m)
    keep, whole = pattern.mask(scores, sparsity, axis), pattern.mask(scores, 1 - pattern.n / pattern.m, axis)
    assert (keep >= whole).all()
    assert (~keep).sum() == min(floor_share(scores.size, sparsity), (~whole).sum())


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4), (-1, 2), (0, 0)])
def test_patterns_that_mean_nothing_are_refused(n, m):
    with pytest.raises(ValueError, match=f"0 < n < m.*Received: n={n}, m={m}"):
        NofM(n, m)


def test_n_of_m_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"2 of every 4 stay, so at most 0.5 can.*sparsity=0.6"):
        NofM(2, 4).mask(np.ones((8, 8)), 0.6)
    assert NofM(2, 3).mask(np.ones((3, 1)), 1 / 3).sum() == 2
    with pytest.raises(ValueError, match=r"along the input axis.*\(8,\) and axis=-2"):
        NofM(2, 4).mask(np.ones(8), 0.5)


def test_channels_that_must_stay_stay():
    assert Channel().mask(np.array([np.inf, 1.0, np.inf, 2.0]), 0.75).tolist() == [True, False, True, False]


FAMILY = [Channel(), Unstructured(), Block((2, 2)), NofM(2, 4)]


@pytest.mark.parametrize("granularity", FAMILY)
def test_the_family_has_one_base(granularity):
    assert isinstance(granularity, Granularity)
    wanted = Channel if isinstance(granularity, Channel) else Granularity
    assert check_granularity(granularity, wanted, "it") is granularity


@pytest.mark.parametrize("granularity", FAMILY[1:])
@pytest.mark.parametrize("make", [FPGM, SoftFilterPruning, FilterPruning])
def test_callbacks_of_filters_say_that_a_channel_fits(make, granularity):
    message = (
        rf"^{make.__name__} prunes whole channels, so it takes a Channel.*Received: {type(granularity).__name__}\("
    )
    with pytest.raises(TypeError, match=message + ".*a granularity of weights, which MagnitudePruning takes"):
        make(0.5, granularity=granularity)


@pytest.mark.parametrize("granularity", [*FAMILY[1:], 8])
def test_prune_channels_says_that_a_channel_fits(granularity):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    with pytest.raises(TypeError, match=r"^prune_channels prunes whole channels, so it takes a Channel"):
        tfprune.prune_channels(model, 0.5, granularity=granularity)


@pytest.mark.parametrize("granularity", [Channel(), "2:4"])
def test_callbacks_of_weights_say_which_fit(granularity):
    with pytest.raises(TypeError, match=r"^MagnitudePruning prunes single weights, so it takes Unstructured\(\), NofM"):
        MagnitudePruning(0.5, granularity=granularity)


@pytest.mark.parametrize("granularity", FAMILY)
def test_every_granularity_refuses_nan_and_a_sparsity_out_of_range(granularity):
    scores = np.ones((4, 4))
    for sparsity in (-0.1, math.nan):
        with pytest.raises(ValueError, match=rf"sparsity must be in \[0, 1\). Received: {sparsity}"):
            granularity.mask(scores, sparsity)
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"scores are NaN.*clipnorm"):
        granularity.mask(scores, 0.25)
    with pytest.raises(ValueError, match=r"sparsity must be in"):
        Unstructured().mask(scores, 1.0)


def test_weights_that_are_gone_add_nothing_to_their_block():
    gone = -np.inf
    scores = np.array([[4.0, gone, gone], [gone, 3.0, gone], [1.0, 1.0, 6.0]])
    assert Block((2, 1)).units(scores).tolist() == [[2.0, 1.5, gone], [1.0, 1.0, 6.0]]
    assert Block((2, 1)).mask(scores, 0.34).tolist() == [[True, True, False], [True, True, False], [True, False, True]]
