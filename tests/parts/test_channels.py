import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from networks import dense, kill, residual
from scipy.spatial.distance import cdist

from tfprune.criteria import geometric_median_distance, l1_norm, l2_norm
from tfprune.graph import channel_groups
from tfprune.parts.channels import channel_masks, zero_channels
from tfprune.parts.ranking import Ranking

L = keras.layers


def hidden_group(kernel):
    """A group whose channels one Dense kernel makes."""
    kernel = np.asarray(kernel, "float32")
    model = keras.Sequential([keras.Input((kernel.shape[0],)), L.Dense(kernel.shape[1], name="hidden"), L.Dense(1)])
    model.get_layer("hidden").kernel.assign(kernel)
    return channel_groups(model).free[0]


def everything(group):
    return np.ones(group.size, bool)


def keep(group, *shares):
    """Which channels of one group stay."""
    (kept,) = Ranking().choose([group], shares)
    return kept


def paper_choice(weights, norm_fraction, distance_fraction):
    """FPGM of the paper, written naively: `weights` has one row per filter; returns the filters that go."""
    count = len(weights)
    by_norm = sorted(range(count), key=lambda i: (np.sqrt((weights[i] ** 2).sum()), -i))
    gone = by_norm[: int(count * norm_fraction)]
    left = [i for i in range(count) if i not in gone]
    distances = cdist(weights[left], weights[left]).sum(axis=1)
    order = sorted(range(len(left)), key=lambda i: (distances[i], -i))
    return sorted(gone + [left[i] for i in order[: int(count * distance_fraction)]])


def test_scores_by_hand():
    group = hidden_group([[3.0, -1.0, 0.0], [4.0, 2.0, 0.0]])
    assert Ranking().scores(group, l1_norm, everything(group)).tolist() == [
        7.0,
        3.0,
        -np.inf,
    ]  # zero goes first, whatever the criterion


def test_scores_of_some_channels_only():
    group = hidden_group([[-1.0, 1.0, 5.0]])
    among = np.array([True, False, True])
    scores = Ranking().scores(group, geometric_median_distance, among)
    np.testing.assert_allclose(scores, [6.0, np.inf, 6.0])


def test_scores_across_an_addition_are_the_mean_over_kernels():
    model = residual()
    stem, branch = (model.get_layer(name).kernel.numpy() for name in ("stem", "branch"))
    group = channel_groups(model).free[0]
    expected = (l2_norm(stem) + l2_norm(branch)) / 2
    np.testing.assert_allclose(Ranking().scores(group, l2_norm, everything(group)), expected, rtol=1e-12)


def test_scores_of_a_channel_made_twice_by_one_kernel_are_the_mean():
    inputs = keras.Input((1,))
    once, twice = L.Dense(2, name="once"), L.Dense(4, name="twice")
    x = once(inputs)
    x = L.Add()([L.Concatenate()([x, x]), twice(inputs)])
    group = channel_groups(keras.Model(inputs, L.Dense(1)(x))).free[0]
    once.kernel.assign([[1.0, 10.0]])
    twice.kernel.assign([[2.0, 20.0, 3.0, 30.0]])
    assert group.size == 2
    np.testing.assert_allclose(Ranking().scores(group, l1_norm, everything(group)), [6 / 3, 60 / 3])


@pytest.mark.parametrize(("sparsity", "gone"), [(0.25, [1]), (0.5, [1, 3]), (0.75, [0, 1, 3]), (0.99, [0, 1, 3])])
def test_selection_by_norm(sparsity, gone):
    group = hidden_group([[3.0, 1.0, -4.0, 2.0]])
    assert np.flatnonzero(~keep(group, (l2_norm, sparsity))).tolist() == gone


def test_two_stages_by_hand():
    # By norm 0 goes. Of 1, 5, 6, 10 the median's neighbours 5 and 6 tie at 10: the later goes.
    group = hidden_group([[0.1, 1.0, 5.0, 6.0, 10.0]])
    shares = [(l2_norm, 0.2), (geometric_median_distance, 0.2)]
    assert np.flatnonzero(~keep(group, *shares)).tolist() == [0, 3]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.integers(1, 50), unique=True),
    st.sampled_from([(0.0, 0.4), (0.1, 0.3), (0.3, 0.3), (0.5, 0.0)]),
)
def test_selection_equals_the_paper(kernel, fractions):
    group = hidden_group(kernel)
    shares = [(l2_norm, fractions[0]), (geometric_median_distance, fractions[1])]
    gone = np.flatnonzero(~keep(group, *shares)).tolist()
    expected = paper_choice(kernel.T.astype("float64"), *fractions)
    if gone != expected:  # rounding may break a tie the other way; then both choices must be equally good
        distances = cdist(kernel.T, kernel.T).sum(axis=1)
        assert len(gone) == len(expected)
        assert sorted(distances[gone]) == pytest.approx(sorted(distances[expected]), rel=1e-6)


def test_zero_channels_go_first_and_again():
    group = hidden_group([[0.0, 9.0, 5.0, 5.1, 0.0, 1.0]])
    for criterion in (l2_norm, geometric_median_distance):
        assert np.flatnonzero(~keep(group, (criterion, 0.34))).tolist() == [0, 4]


def test_zero_channels_need_every_kernel_to_be_zero():
    model = residual()
    group = channel_groups(model).free[0]
    kill(model.get_layer("stem"), [1, 3])
    assert np.flatnonzero(zero_channels(group.producers, group.size)).tolist() == []
    kill(model.get_layer("branch"), [3, 4])
    assert np.flatnonzero(zero_channels(group.producers, group.size)).tolist() == [3]


def test_nan_weights_are_refused():
    group = hidden_group([[1.0, np.nan]])
    with pytest.raises(ValueError, match="scores are NaN"):
        keep(group, (l2_norm, 0.5))


def test_masks_by_role():
    model = dense((3, 1))
    hidden = model.get_layer("hidden")
    choice = [(channel_groups(model).free[0], np.array([True, False, True]))]
    kernel_only = channel_masks(choice, ("producer",))
    assert {path: mask.tolist() for path, mask in kernel_only.items()} == {
        hidden.kernel.path: [[True, False, True]] * 2
    }
    both = channel_masks(choice, ("producer", "affine"))
    assert both[hidden.bias.path].tolist() == [True, False, True]
    reads = channel_masks(choice, ("consumer",))
    assert reads[model.get_layer("classes").kernel.path].tolist() == [[True], [False], [True]]


def test_masks_of_two_groups_on_one_kernel_join():
    inputs = keras.Input((1,))
    parts = [L.Dense(2, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, L.Dense(1, name="reader")(L.Concatenate()(parts)))
    groups = {group.name: group for group in channel_groups(model).free}
    choice = [(groups["a"], np.array([False, True])), (groups["b"], np.array([True, False]))]
    mask = channel_masks(choice, ("consumer",))[model.get_layer("reader").kernel.path]
    assert mask[:, 0].tolist() == [False, True, True, False]
