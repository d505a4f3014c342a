"""Costs as sums of products over channels."""

import keras
import numpy as np
import pytest
from networks import chain, densely_connected, preactivation, residual

from tfprune import profile, shrink
from tfprune.graph import analyse
from tfprune.graph.channel_costs import layer_macs, layer_terms, marginal_costs, parameter_terms, total_cost

L = keras.layers


def separable():
    layers = [L.SeparableConv2D(6, 3), L.DepthwiseConv2D(3, depth_multiplier=2), L.Conv2D(4, 3, groups=2), L.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 2)), L.Conv2D(4, 3), *layers, L.Dense(3)])


def recurrent():
    return keras.Sequential([keras.Input((5, 3)), L.LSTM(4, return_sequences=True), L.GRU(6), L.Dense(3)])


@pytest.mark.sampled(6)
@pytest.mark.parametrize("make", [chain, residual, preactivation, densely_connected, separable, recurrent])
@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_the_formula_gives_what_the_shrunken_model_costs(make, kind):
    model = make()
    analysis = analyse(model)

    def place(binding):
        return analysis.labels[binding.channels]

    if kind == "macs":
        terms = layer_terms(analysis, layer_macs(analysis), place)
    else:
        terms = parameter_terms(model, analysis, place)
    counts = np.ones(analysis.trace.num_channels)
    assert total_cost(terms, counts) == pytest.approx(getattr(profile(model), kind))
    keep = {}
    for number, group in enumerate(analysis.groups.free):
        kept = np.arange(group.size) % (2 + number % 2) == 0
        keep[group] = np.flatnonzero(kept)
        counts[group.labels[~kept]] = 0
    small = shrink(model, keep)
    assert total_cost(terms, counts) == pytest.approx(getattr(profile(small), kind))


def test_marginal_costs_are_the_derivative():
    model = residual()
    analysis = analyse(model)
    terms = layer_terms(analysis, layer_macs(analysis), lambda binding: analysis.labels[binding.channels])
    counts = np.random.default_rng(0).uniform(0.5, 1.0, analysis.trace.num_channels)
    found = marginal_costs(terms, counts)
    for channel in range(len(counts)):
        step = np.eye(len(counts))[channel] * 1e-5
        by_hand = (total_cost(terms, counts + step) - total_cost(terms, counts - step)) / 2e-5
        assert found[channel] == pytest.approx(by_hand, rel=1e-6, abs=1e-6)


def test_layers_that_are_not_followed_cost_what_they_cost():
    class Own(L.Dense):
        pass

    model = keras.Sequential([keras.Input((4,)), Own(3), L.Dense(2)])
    analysis = analyse(model)
    terms = layer_terms(analysis, {model.layers[0]: 7.0, model.layers[1]: 5.0}, lambda binding: binding.channels)
    assert total_cost(terms, np.zeros(analysis.trace.num_channels)) == 7.0
