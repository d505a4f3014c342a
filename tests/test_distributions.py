import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tfprune.distributions import erdos_renyi, erdos_renyi_kernel, global_, smart_ratio, uniform
from tfprune.granularity import NofM, prune_lowest

ALL = [uniform, erdos_renyi, erdos_renyi_kernel, global_]
PERCENT = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)
LAYERS = st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=30), min_size=1, max_size=6).map(
    lambda layers: {f"layer{index}": np.array(values, float) for index, values in enumerate(layers)}
)
SHAPES = st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), min_size=1, max_size=6)


def scored(*shapes):
    return {f"layer{index}": np.ones(shape) for index, shape in enumerate(shapes)}


def exact_floor(product):
    return math.floor(round(product, 9))


def by_bisection(shapes, raw, sparsity):
    """The densities min(1, eps * raw) whose live weights are as many as a uniform sparsity would leave."""
    sizes = [math.prod(shape) for shape in shapes]
    wanted = sum(size - exact_floor(size * sparsity) for size in sizes)
    low, high = 0.0, 1e9
    for _ in range(300):
        eps = (low + high) / 2
        if sum(min(1.0, eps * share) * size for share, size in zip(raw, sizes, strict=True)) < wanted:
            low = eps
        else:
            high = eps
    return [min(1.0, low * share) for share in raw]


def test_uniform_by_hand():
    assert uniform(scored((100,), (3, 5), (1,)), 0.29) == {"layer0": 29, "layer1": 4, "layer2": 0}


def test_lenet_300_100_by_bisection():
    shapes = [(784, 300), (300, 100), (100, 10)]
    densities = by_bisection(shapes, [sum(shape) / math.prod(shape) for shape in shapes], 0.9)
    expected = [exact_floor((1 - density) * math.prod(s)) for density, s in zip(densities, shapes, strict=True)]
    assert densities[2] == 1.0  # so the loop that makes layers dense is in play
    assert list(erdos_renyi_kernel(scored(*shapes), 0.9).values()) == expected
    assert list(erdos_renyi(scored(*shapes), 0.9).values()) == expected
    # By hand: of 26620 live weights 1000 are dense; the rest is 25620 * 1084 / 1484 and 25620 * 400 / 1484.
    assert expected == [235200 - 18715, 30000 - 6906, 0]


@given(SHAPES, PERCENT)
def test_densities_by_bisection(shapes, sparsity):
    for distribution, dims in ((erdos_renyi, lambda shape: shape[-2:]), (erdos_renyi_kernel, lambda shape: shape)):
        raw = [sum(dims(shape)) / math.prod(dims(shape)) for shape in shapes]
        densities = by_bisection(shapes, raw, sparsity)
        for count, density, shape in zip(
            distribution(scored(*shapes), sparsity).values(), densities, shapes, strict=True
        ):
            size = math.prod(shape)
            assert count == pytest.approx(min((1 - density) * size, size - 1), abs=1.0 + 1e-6)


def test_kernel_size_counts_only_with_kernel():
    scores = scored((5, 5, 10, 10), (1, 1, 50, 50))
    # ER: 20/100 against 100/2500, so 5 to 1. ERK: 30/2500 against 102/2500.
    er, erk = erdos_renyi(scores, 0.9), erdos_renyi_kernel(scores, 0.9)
    assert er == {"layer0": exact_floor(2500 - 500 * 5 / 6), "layer1": exact_floor(2500 - 500 / 6)}
    assert erk == {"layer0": exact_floor(2500 - 500 * 30 / 132), "layer1": exact_floor(2500 - 500 * 102 / 132)}


def test_a_vector_counts_as_one_row():
    assert erdos_renyi(scored((50,), (50, 50)), 0.5) == erdos_renyi(scored((1, 50), (50, 50)), 0.5)
    assert erdos_renyi_kernel(scored((50,), (50, 50)), 0.5) == {"layer0": 0, "layer1": 1275}


def test_global_by_hand():
    scores = {"a": np.array([[1.0, 5.0], [3.0, 5.0]]), "b": np.array([2.0, 4.0]), "c": np.array([0.0])}
    assert global_(scores, 3 / 7) == {"a": 2, "b": 1, "c": 0}
    assert global_(scores, 4 / 7) == {"a": 3, "b": 1, "c": 0}  # 4.0 is the last of b, so one of the 5.0 goes


def test_global_ties_go_in_the_later_layer_first():
    scores = scored((4,), (4,))
    assert global_(scores, 0.25) == {"layer0": 0, "layer1": 2}
    assert global_(scores, 0.5) == {"layer0": 1, "layer1": 3}


def test_global_takes_integers_and_mixed_dtypes():
    scores = {"a": np.array([3, 1, 2]), "b": np.array([0.5, 9.0, 1.5], "float16")}
    assert global_(scores, 0.5) == {"a": 1, "b": 2}
    assert scores["a"].tolist() == [3, 1, 2]
    assert scores["b"].tolist() == [0.5, 9.0, 1.5]


@given(LAYERS, PERCENT)
def test_global_is_exact_and_what_a_naive_sort_picks(scores, sparsity):
    size = sum(array.size for array in scores.values())
    wanted = exact_floor(size * sparsity)
    best = {name: min(range(len(array)), key=lambda i, a=array: (-a[i], i)) for name, array in scores.items()}
    free = [
        (value, -number, -index, name)
        for number, (name, array) in enumerate(scores.items())
        for index, value in enumerate(array)
        if index != best[name]
    ]
    assume(wanted <= len(free))
    gone = [name for *_, name in sorted(free)[:wanted]]
    counts = global_(scores, sparsity)
    assert counts == {name: gone.count(name) for name in scores}
    assert all(prune_lowest(array, counts[name]).any() for name, array in scores.items())


@pytest.mark.parametrize("distribution", ALL)
@given(scores=LAYERS, sparsities=st.tuples(PERCENT, PERCENT))
def test_more_sparsity_prunes_no_layer_less(distribution, scores, sparsities):
    room = sum(array.size - 1 for array in scores.values()) / sum(array.size for array in scores.values())
    low, high = sorted(sparsities)
    assume(high < room)
    few, many = distribution(scores, low), distribution(scores, high)
    assert list(few) == list(many) == list(scores)
    assert all(0 <= few[name] <= many[name] < array.size for name, array in scores.items())
    assert set(distribution(scores, 0.0).values()) == {0}


@pytest.mark.parametrize("distribution", ALL)
def test_protected_units_stay(distribution):
    scores = {"a": np.array([[np.inf, np.inf, np.inf, 1.0]]), "b": np.arange(100.0).reshape(10, 10)}
    assert distribution(scores, 0.7)["a"] <= 1
    assert distribution({"a": np.full((2, 2), np.inf), "b": np.ones((20, 20))}, 0.5)["a"] == 0


def test_of_a_pattern_only_the_candidates_go():
    kernels = {name: np.random.default_rng(0).random((8, size)) for name, size in {"a": 3, "b": 50}.items()}
    units = {name: NofM(2, 4).units(kernel) for name, kernel in kernels.items()}
    assert uniform(units, 0.5) == global_(units, 0.5) == {"a": 12, "b": 200}


@pytest.mark.parametrize("distribution", ALL)
def test_wrong_arguments_are_refused(distribution):
    with pytest.raises(ValueError, match=r"no layer to prune: scores is empty"):
        distribution({}, 0.5)
    with pytest.raises(ValueError, match=r"scores of layer 'b' are NaN.*clipnorm"):
        distribution({"a": np.ones((2, 2)), "b": np.array([[1.0, np.nan]])}, 0.5)
    with pytest.raises(ValueError, match=r"'b' has no units to prune.*\(0, 3\)"):
        distribution({"a": np.ones((2, 2)), "b": np.ones((0, 3))}, 0.5)
    for sparsity in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=rf"sparsity must be in \[0, 1\). Received: {sparsity}"):
            distribution(scored((2, 2)), sparsity)


def test_too_many_protected_units_are_named():
    scores = {"a": np.array([np.inf, np.inf, 1.0, 2.0]), "b": np.array([1.0, 2.0, 3.0, 4.0])}
    assert global_(scores, 0.625) == {"a": 2, "b": 3}
    with pytest.raises(ValueError, match=r"pruning 6 of 8 units, but only 5 may go, 1 too few.*at most 0.625"):
        global_(scores, 0.75)
    with pytest.raises(ValueError, match=r"pruning 2 of 4 units, but only 0 may go, 2 too few"):
        global_(scored((1,), (1,), (1,), (1,)), 0.5)


def test_smart_ratio_by_hand():
    # Of 10,000 + 20,000 + 1,000 weights 3,100 live: 300 in the head, the others as 6 * 10,000 to 2 * 20,000.
    found = smart_ratio(scored((10, 10, 10, 10), (10, 10, 10, 20), (50, 20)), 0.9)
    assert found == {"layer0": 10000 - 1680, "layer1": 20000 - 1120, "layer2": 700}
    # Without convolutions the last layer is the head; the first cannot hold its 6 / (6 + 2) of 5,500 - 300.
    found = smart_ratio(scored((10, 100), (10, 1000), (10, 100)), 0.5)
    assert found == {"layer0": 0, "layer1": 10000 - 4700, "layer2": 700}
    with pytest.raises(ValueError, match=r"keeps 30% of \['layer1'\], which is more than a sparsity of 0.99 lets live"):
        smart_ratio(scored((3, 3, 4, 4), (100, 10)), 0.99)


@given(SHAPES, PERCENT)
def test_smart_ratio_leaves_as_many_as_uniform_up_to_rounding(shapes, sparsity):
    sizes = [math.prod(shape) for shape in shapes]
    live = sum(size - exact_floor(size * sparsity) for size in sizes)
    heads = [size for size, shape in zip(sizes, shapes, strict=True) if len(shape) == 2]
    heads = [sizes[-1]] if len(heads) == len(shapes) else heads
    assume(0.3 * sum(heads) <= live <= 0.3 * sum(heads) + sum(sizes) - sum(heads))
    counts = smart_ratio(scored(*shapes), sparsity)
    kept = [size - count for size, count in zip(sizes, counts.values(), strict=True)]
    assert abs(sum(kept) - live) <= len(shapes)
    assert min(kept) >= 1
