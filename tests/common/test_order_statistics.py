"""Selection without a copy finds what a full sort finds, whatever the numbers are and however they are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.common import order_statistics
from tfprune.common.order_statistics import drop_last_ties, kth_lowest
from tfprune.distributions import global_
from tfprune.granularity import floor_share, prune_lowest

SPECIAL = [-np.inf, -1.0, -0.0, 0.0, 1e-45, 0.5, 1.0, np.inf]


def sorted_lowest(flat, count):
    """The mask by a stable sort in which of equal values the later one comes first."""
    order = np.lexsort((-np.arange(flat.size), flat + 0.0))
    mask = np.ones(flat.size, bool)
    mask[order[:count]] = False
    return mask


def sorted_global(scores, sparsity):
    """The counts of `global_`, by a copy of all scores in which the best of each layer must stay."""
    together = np.concatenate([array.ravel() for array in scores.values()]).astype(np.float64)
    bounds = np.cumsum([array.size for array in scores.values()])[:-1]
    for layer in np.split(together, bounds):
        layer[layer.argmax()] = np.inf
    kept = np.split(sorted_lowest(together, floor_share(together.size, sparsity)), bounds)
    return {name: int((~mask).sum()) for name, mask in zip(scores, kept, strict=True)}


def make_small(patch):
    """Make a few hundred numbers so many that they are not copied, and many more than a sample or a part."""
    patch.setattr(order_statistics, "_SMALL", 4)
    patch.setattr(order_statistics, "_SAMPLE", 8)
    patch.setattr(order_statistics, "_PART", 16)


@pytest.fixture
def small_parts(monkeypatch):
    make_small(monkeypatch)


VALUES = st.lists(st.sampled_from(SPECIAL) | st.floats(-2, 2, width=16), min_size=1, max_size=200)


@given(VALUES, st.data(), st.sampled_from(["float16", "float32", "float64"]))
def test_lowest_are_those_of_a_sort(values, data, dtype):
    flat = np.array(values, dtype)
    count = data.draw(st.integers(0, flat.size))
    assert np.array_equal(prune_lowest(flat, count), sorted_lowest(flat, count))
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        assert np.array_equal(prune_lowest(flat, count), sorted_lowest(flat, count))


@pytest.mark.sampled(6)
@pytest.mark.parametrize("size", [2**20 + 3, 3 * 2**20])
@pytest.mark.parametrize("kind", ["normal", "mostly pruned", "all equal", "few levels", "sorted", "half inf"])
def test_many_numbers(kind, size):
    random = np.random.default_rng(size)
    flat = np.abs(random.normal(size=size)).astype("float32")
    if kind == "mostly pruned":
        flat[random.random(size) < 0.9] = -1
    elif kind == "all equal":
        flat[:] = 0.25
    elif kind == "few levels":
        flat = np.round(flat)
    elif kind == "sorted":
        flat.sort()
    elif kind == "half inf":
        flat[::2] = np.inf
    for count in (1, 7, size // 3, size // 2, round(size * 0.93), size - 1, size):
        value = np.partition(flat, count - 1)[count - 1]
        old = flat >= value
        ties = np.flatnonzero(flat == value)
        old[ties[ties.size - (count - (flat.size - np.count_nonzero(old))) :]] = False
        assert np.array_equal(prune_lowest(flat, count), old)


@pytest.mark.parametrize("levels", [3, 50, None])
@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.5, 0.8, 0.93])
def test_global_counts_are_those_of_a_copy(levels, sparsity, small_parts):
    random = np.random.default_rng(5)
    shapes = {"a": (3, 3, 4, 8), "b": (1,), "c": (40, 6), "d": (7,)}
    scores = {name: np.abs(random.normal(size=shape)).astype("float32") for name, shape in shapes.items()}
    if levels:
        scores = {name: np.round(array * levels) / levels for name, array in scores.items()}
    scores["c"][:5] = np.inf
    kept = {name: array.copy() for name, array in scores.items()}
    assert global_(scores, sparsity) == sorted_global(scores, sparsity)
    assert all(np.array_equal(scores[name], kept[name]) for name in scores)


def test_a_sample_that_misleads_is_taken_further_apart(small_parts, monkeypatch):
    flat = np.arange(400.0)
    monkeypatch.setattr(order_statistics, "_sample", lambda arrays, sizes: np.linspace(390.0, 398.0, 1000))
    looked = []
    between = order_statistics._between
    monkeypatch.setattr(order_statistics, "_between", lambda *args: looked.append(args[2:]) or between(*args))
    assert kth_lowest(lambda: [flat], [400], 100).value == 99
    assert len(looked) == 2
    assert looked[0][0] > 390
    assert looked[1][0] == -np.inf


def test_each_array_is_asked_for_anew_and_only_one_is_kept(small_parts):
    made = []

    def arrays():
        for start in (0, 100, 200):
            made.append(start)
            yield np.arange(start, start + 100.0)

    found = kth_lowest(arrays, [100, 100, 100], 150)
    assert (found.value, found.below, found.ties) == (149, [100, 49, 0], [0, 1, 0])
    assert len(made) % 3 == 0


def test_ties_go_from_the_end():
    mask = np.ones(6, bool)
    drop_last_ties(mask, np.array([1.0, 2.0, 1.0, 1.0, 2.0, 1.0]), 1.0, 2)
    assert mask.tolist() == [True, True, True, False, True, False]
