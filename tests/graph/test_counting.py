"""Sizes counted from channels are those of the model that is made."""

from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import randomize
from strategies import choose, draw_model

from tfprune import profile, shrink, widen
from tfprune.graph import analyse, functional
from tfprune.graph.channel_costs import Term
from tfprune.graph.counting import Count, Polynomial, SizeCounter
from tfprune.shrinking.widths import multiplied, spread

L = keras.layers
NAMES = ("parameters", "macs", "weight_bytes")


def sizes(model):
    found = profile(model)
    return {"parameters": found.parameters, "macs": found.macs, "weight_bytes": 4 * found.parameters}


def unneeded_biases(model, small, counted):
    """The parameters of biases that were counted, but for constants that turned out to be zero."""
    before = {call.layer.name: call.layer for call in analyse(model).trace.calls}
    now = {call.layer.name: call.layer for call in analyse(small).trace.calls}
    spare = [layer.kernel.shape[-1] for name, layer in now.items() if getattr(before[name], "bias", 0) is None
             and layer.bias is None and hasattr(layer, "kernel")]  # fmt: skip
    return counted - sizes(small)["parameters"] in {0, *np.cumsum(sorted(spare)).tolist(), *spare}


def check(examples):
    seen = Counter()

    @given(st.data())
    @settings(max_examples=examples)
    def run_one(data):
        model = draw_model(data.draw)
        analysis = analyse(model)
        assert SizeCounter(model, analysis)(np.ones(analysis.trace.num_channels), NAMES) == sizes(functional(model))
        choice = choose(data.draw, analysis)
        counts = np.ones(analysis.trace.num_channels)
        for group, kept in choice:
            counts[group.labels[~kept]] = 0
        small = shrink(model, keep={group: np.flatnonzero(kept) for group, kept in choice})
        counted, found = SizeCounter(model, analysis, folds=True)(counts, NAMES), sizes(small)
        assert counted["macs"] == found["macs"]
        assert counted["weight_bytes"] == 4 * counted["parameters"]
        if counted != found:
            seen["counted a bias too many"] += 1
            assert unneeded_biases(model, small, counted["parameters"])
        seen["examples"] += 1
        seen["smaller"] += bool((counts == 0).any())
        seen["biases added"] += counted["parameters"] > SizeCounter(model, analysis)(counts, NAMES)["parameters"]
        if analysis.groups.free:
            multiplier = data.draw(st.sampled_from([0.4, 1.5, 2.0]))
            wide = spread(analysis, multiplied(analysis.groups, multiplier))
            assert SizeCounter(model, analysis)(wide, NAMES) == sizes(widen(model, multiplier))
            seen["other widths"] += 1

    run_one()
    assert seen["smaller"] > 0.3 * examples
    assert seen["other widths"] > 0.3 * examples
    assert seen["counted a bias too many"] < 0.05 * examples
    return seen


def test_counts_of_any_graph():
    check(5)


@pytest.mark.slow
def test_counts_of_five_hundred_graphs():
    assert check(500)["biases added"] > 5


def mixed():
    inputs = keras.Input((8, 6, 2))
    x = L.Conv2D(8, 3, padding="same", activation="sigmoid", name="waking")(inputs)
    x = L.Conv2D(6, 1, use_bias=False, name="folding")(x)
    x = L.SeparableConv2D(4, 3, name="separable")(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = L.Conv2DTranspose(4, 2, name="transposed")(x)
    x = L.Reshape((-1, 4))(x)
    x = L.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = L.TimeDistributed(L.Dense(5, name="each"))(x)
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.EinsumDense("abc,cd->abd", (15, 4), name="einsum")(x)
    return keras.Model(inputs, L.Dense(2)(L.GRU(4)(x)))


def test_every_kind_of_layer_that_multiplies():
    model = randomize(mixed())
    analysis = analyse(model)
    counts, keep = np.ones(analysis.trace.num_channels), {}
    for number, group in enumerate(analysis.groups.free):
        kept = np.arange(group.size) % (2 + number % 2) == 0
        keep[group], counts[group.labels[~kept]] = np.flatnonzero(kept), 0
    assert len(keep) >= 10
    small = shrink(model, keep)
    assert small.get_layer("folding").use_bias  # the sigmoid of a channel that is gone is a half
    assert SizeCounter(model, analysis, folds=True)(counts, NAMES) == sizes(small)


def test_sizes_that_are_not_fixed_are_refused_only_where_they_matter():
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3, name="conv"), L.Conv2D(1, 1)])
    count, ones = SizeCounter(model, analyse(model)), np.ones(analyse(model).trace.num_channels)
    assert count(ones, ["parameters"]) == {"parameters": model.count_params()}
    with pytest.raises(ValueError, match=r"'conv' works on the shape \(None, None, 2\).*fixed input shape"):
        count(ones, ["macs"])


def test_polynomials_calculate_like_numbers():
    # 3 * a * b + 2 * b, with a = 2 channels on a and b = 3.
    a, b = (Polynomial((Term(size, (np.arange(size) + start,)),)) for size, start in ((2, 0), (3, 2)))
    total = Count((3 * a * b + b * 2 + 0).terms, 5)
    assert total(np.ones(5)) == 3 * 2 * 3 + 2 * 3
    assert total(np.array([1, 0, 1, 1, 0])) == 3 * 1 * 2 + 2 * 2
    assert total(np.array([2, 2, 1, 1, 5])) == 3 * 4 * 7 + 2 * 7
    assert Count((7 + a).terms, 5)(np.zeros(5)) == 7
