"""What is worth least for what it costs goes first: by hand, and against the definition, counted anew at every step."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import chain, densely_connected, randomize, residual

import tfprune
from tfprune import Budget, Ranking, Widths
from tfprune.criteria import GroupFisher, GroupNorm
from tfprune.granularity import Channel
from tfprune.graph import analyse
from tfprune.graph.channel_costs import Term
from tfprune.graph.counting import Count, SizeCounter
from tfprune.graph.groups import named
from tfprune.shrinking.budget import load, measure
from tfprune.shrinking.cost_order import CostOrder
from tfprune.shrinking.order import Scores
from tfprune.statistics import Statistics

L = keras.layers
PER_MAC = Ranking("global", normalize="none", cost="macs")


def information(**scores):
    """Statistics that say just what `GroupFisher` reads."""
    return Statistics(1, {}, {"gate_gradient_squared": {name: np.array(each) for name, each in scores.items()}})


def drawn(model, seed=0):
    random = np.random.default_rng(seed)
    groups = named(analyse(model).groups)
    return information(**{name: random.uniform(0.1, 1.0, group.size) ** 4 for name, group in groups.items()})


def choose(model, statistics, amount=None, ranking=PER_MAC, **options):
    return tfprune.choose_widths(model, amount, criterion=GroupFisher(), data=statistics, ranking=ranking, **options)


def two_layers():
    """2 a + a b + b MACs, with a = 3 and b = 2."""
    layers = [keras.Input((2,)), *(L.Dense(n, use_bias=False, name=name) for n, name in ((3, "a"), (2, "b"), (1, "c")))]
    return keras.Sequential(layers)


def mobile():
    """A depthwise separable network with an inverted residual block, inside another model."""

    def layers(x, filters, name):
        x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        x = L.ReLU()(L.BatchNormalization(name=f"{name}_norm")(x))
        return L.Conv2D(filters, 1, name=f"{name}_pointwise")(x)

    inner_input = keras.Input((8, 8, 6))
    wide = L.ReLU()(L.Conv2D(12, 1, name="expand")(inner_input))
    inner = keras.Model(inner_input, L.Add()([inner_input, layers(wide, 6, "project")]), name="inner")
    inputs = keras.Input((8, 8, 2))
    x = inner(layers(L.Conv2D(8, 3, padding="same", name="stem")(inputs), 6, "first"))
    return keras.Model(inputs, L.Dense(3, name="classes")(L.Flatten()(x)))


class TestByHand:
    def test_costs_are_those_of_the_present_widths(self):
        # An a saves 2 + b = 4, a b saves a + 1 = 4: 1/4 < 2.5/4. Then 3/4 < 2.5/3, though 3/4 > 2.5/4.
        statistics = information(a=[8.0, 3.0, 1.0], b=[9.0, 2.5])
        assert choose(two_layers(), statistics, 1 / 5, dataclasses.replace(PER_MAC, floor=0)) == {"a": 2, "b": 2}
        assert choose(two_layers(), statistics, 2 / 5, dataclasses.replace(PER_MAC, floor=0)) == {"a": 1, "b": 2}
        assert choose(two_layers(), statistics, 3 / 5, dataclasses.replace(PER_MAC, floor=0)) == {"a": 1, "b": 1}

    def test_the_floor_keeps_a_share_of_every_group(self):
        statistics = information(a=[8.0, 3.0, 1.0], b=[9.0, 2.5])
        assert choose(two_layers(), statistics, 2 / 5, dataclasses.replace(PER_MAC, floor=0.5)) == {"a": 2, "b": 1}
        assert choose(two_layers(), statistics, 0.0, dataclasses.replace(PER_MAC, floor=1.0)) == {"a": 3, "b": 2}

    def test_parameters_cost_too(self):
        """Bias and weights: an a saves 3 + b = 5, a b saves a + 2 = 5; then a b saves 4."""
        layers = [keras.Input((2,)), *(L.Dense(n, name=name) for n, name in ((3, "a"), (2, "b"), (1, "c")))]
        ranking = dataclasses.replace(PER_MAC, cost="parameters")
        statistics = information(a=[8.0, 3.0, 1.0], b=[9.0, 2.5])  # 1/5, then 3/5 < 2.5/4
        assert choose(keras.Sequential(layers), statistics, 2 / 5, ranking) == {"a": 1, "b": 2}

    def test_several_channels_of_a_step_are_added_up(self):
        # Two of a: (1 + 2) / 2 (2 + b), with b = 4: 3/12. Two of b: (1 + 1.5) / 2 (a + 1): 2.5/10 = 3/12.
        layers = [keras.Input((2,)), *(L.Dense(n, use_bias=False, name=name) for n, name in ((4, "a"), (4, "b")))]
        model = keras.Sequential([*layers, L.Dense(1, use_bias=False)])
        for least, widths in ((1.4, {"a": 4, "b": 2}), (1.6, {"a": 2, "b": 4})):
            statistics = information(a=[1.0, 9.0, 2.0, 9.0], b=[9.0, 1.0, least, 9.0])
            assert choose(model, statistics, 2 / 8, granularity=Channel(round_to=2)) == widths

    def test_dead_channels_go_first_and_what_saves_nothing_last(self):
        layers = [keras.Input((1,), dtype="int32"), L.Embedding(5, 4, name="words"), L.Flatten()]
        model = randomize(keras.Sequential([*layers, L.Dense(4, name="hidden"), L.Dense(2)]))
        statistics = information(words=[1.0, 2.0, 3.0, 4.0], hidden=[9.0, 9.0, 9.0, 1e6])
        kernel = model.get_layer("hidden").kernel
        kernel.assign(kernel.numpy() * np.array([1, 1, 1, 0]))
        assert choose(model, statistics, 1 / 8) == {"words": 4, "hidden": 3}
        small = tfprune.prune_channels(model, 1 / 8, criterion=GroupFisher(), data=statistics, ranking=PER_MAC)
        assert np.abs(small.get_layer("hidden").kernel.numpy()).sum(axis=0).min() > 0

    def test_what_saves_nothing_goes_last(self):
        count = Count([Term(6, (np.array([0, 1]),)), Term(1, ())], num_channels=4)
        scores = [np.array([5.0, 6.0]), np.array([0.0, 1e-9])]
        order = CostOrder(Scores(scores, scores), count.savings([np.arange(2), np.arange(2, 4)]), PER_MAC, Channel())
        assert order.at_ratio(0.25).tolist() == [1, 2]
        assert order.at_ratio(0.5).tolist() == [1, 1]


def by_definition(model, scores, within, ranking, wanted, granularity):
    """Take the lowest ratio of score to what counting twice says is saved, until so many channels are gone."""
    analysis = analyse(model)
    count = SizeCounter(model, analysis, folds=True)
    free = {name: group for name, group in named(analysis.groups).items() if not group.frozen}
    ascending = {name: np.sort(scores[name]) for name in free}
    going = {name: np.argsort(within[name], kind="stable") for name in free}
    widths = {name: group.size for name, group in free.items()}
    counts = np.ones(analysis.trace.num_channels)
    while True:
        options = []
        for name, group in free.items():
            least = math.ceil(ranking.least * group.size)
            narrower = widths[name] - 1
            while narrower >= least and narrower % granularity.round_to:
                narrower -= 1
            if narrower < max(least, 1):
                continue
            gone = slice(group.size - widths[name], group.size - narrower)
            fewer = counts.copy()
            fewer[group.labels[going[name][gone]]] = 0
            saved = count(counts, [ranking.cost])[ranking.cost] - count(fewer, [ranking.cost])[ranking.cost]
            options.append((ascending[name][gone].sum() / saved, name, narrower, fewer))
        if not options:
            return widths
        _, name, narrower, fewer = min(options, key=lambda option: option[0])
        wanted -= widths[name] - narrower
        if wanted < 0:
            return widths
        widths[name], counts = narrower, fewer


@pytest.mark.sampled(4)
@pytest.mark.parametrize("make", [chain, residual, densely_connected, mobile])
@pytest.mark.parametrize("cost", ["macs", "parameters"])
@pytest.mark.parametrize("round_to", [1, 3])
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_is_its_definition(make, cost, round_to, ratio):
    model = randomize(make((10, 12)) if make is chain else make())
    statistics, within = drawn(model), drawn(model, seed=1).channels["gate_gradient_squared"]

    class Within(GroupNorm):
        def score(self, view):
            return within[view.name]

    ranking, granularity = dataclasses.replace(PER_MAC, cost=cost, within=Within()), Channel(round_to=round_to)
    fast = choose(model, statistics, ratio, ranking, granularity=granularity)
    scores = statistics.channels["gate_gradient_squared"]
    wanted = Channel().count(sum(len(scores[name]) for name in fast), ratio)
    assert fast == by_definition(model, scores, within, ranking, wanted, granularity)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("make", [chain, residual, densely_connected, mobile])
@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(parameters=0.6), Budget(macs=0.7, parameters=0.5)])
def test_a_budget_is_filled_and_the_floor_holds(make, budget):
    model = randomize(make((10, 12)) if make is chain else make())
    statistics, limits = drawn(model), budget.absolute(measure(model))
    widths, full = choose(model, statistics, budget=budget), Widths.of(model)
    small = tfprune.prune_channels(model, widths, criterion=GroupFisher(), data=statistics)
    assert measure(small) == widths.count(model)
    assert load(measure(small), limits) <= 1
    for name, width in full.items():
        assert widths[name] >= width / 4
        if widths[name] < width:
            wider = Widths({**widths, name: widths[name] + 1})
            assert load(wider.count(model), limits) > 1, name


@given(
    st.lists(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=6), min_size=1, max_size=5),
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
)
def test_a_higher_ratio_takes_the_same_and_more(scores, ratios):
    arrays = [np.array(each) for each in scores]
    labels = np.split(np.arange(sum(map(len, arrays))), np.cumsum([len(each) for each in arrays])[:-1])
    chained = [Term(2.0 + number, pair) for number, pair in enumerate(itertools.pairwise(labels))]
    terms = [Term(3.0, (labels[0],)), *chained]
    count = Count(terms, num_channels=len(np.concatenate(labels)))
    ranking, widths = dataclasses.replace(PER_MAC, floor=0), None
    order = CostOrder(Scores(arrays, arrays), count.savings(labels), ranking, Channel())
    for ratio in sorted(ratios):
        found = order.at_ratio(ratio / 21)
        wanted, most = Channel().count(len(np.concatenate(labels)), ratio / 21), sum(len(each) - 1 for each in arrays)
        assert (order.sizes - found).sum() == min(wanted, most)
        assert widths is None or (found <= widths).all()
        widths = found


def test_negative_scores_are_refused():
    with pytest.raises(ValueError, match="weighed by cost must not be negative"):
        choose(two_layers(), information(a=[1.0, -1.0, 2.0], b=[1.0, 2.0]), 0.2)
