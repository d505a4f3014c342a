"""Any model made of the layers that tfprune knows: masking channels and removing them compute the same."""

import warnings
from collections import Counter

import keras
import numpy as np
import pytest
from helpers import outputs_of, random_inputs
from helpers_graph import expected_parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import same, weights_of
from strategies import choose, draw_model

from tfprune import shrink, widen
from tfprune.graph import analyse, functional
from tfprune.parts.channels import channel_masks
from tfprune.parts.gammas import switched_channels
from tfprune.shrinking.constants import probe_inputs, run
from tfprune.shrinking.removal import RESIDUAL
from tfprune.training.masks import apply_masks

TOLERANCE = 1e-5


def masked_equals_shrunken(data, path, seen):
    model = draw_model(data.draw)
    analysis = analyse(model)
    choice = choose(data.draw, analysis)
    seen["examples"] += 1
    seen["channels removed"] += sum(int((~kept).sum()) for _, kept in choice)
    seen["models that shrink"] += any(not kept.all() for _, kept in choice)
    inputs, before = random_inputs(functional(model)), weights_of(model)
    at_once = shrink(model, keep={group: np.flatnonzero(kept) for group, kept in choice})
    assert same(before, weights_of(model))

    apply_masks(model, channel_masks(choice, ("producer", "affine")))
    expected, before = outputs_of(model, inputs), weights_of(model)
    small = shrink_dead(model, choice)
    assert same(before, weights_of(model))
    assert_equal(expected, outputs_of(small, inputs))
    assert_equal(expected, outputs_of(at_once, inputs))

    after = analyse(small)
    parameters = expected_parameters(model, [(group, ~kept) for group, kept in choice]) + added_biases(analysis, after)
    assert small.count_params() == at_once.count_params() == parameters
    if kinds(analysis) == kinds(after):
        sizes = {group.name: int(kept.sum()) for group, kept in choice}
        assert {group.name: group.size for group in after.groups.free} == sizes
        seen["models with the same groups"] += 1
    if data.draw(st.integers(0, 7)) == 0:
        small.save(path)
        assert_equal(outputs_of(small, inputs), outputs_of(keras.models.load_model(path), inputs))
        seen["models saved"] += 1


def shrink_dead(model, choice):
    """Shrink; any warning but that nothing is dead, where nothing was masked, fails the test."""
    if all(kept.all() for _, kept in choice):
        with pytest.warns(UserWarning, match="No channel of the model is dead"):
            return shrink(model)
    return shrink(model)


def assert_equal(expected, actual):
    for first, second in zip(expected, actual, strict=True):
        assert np.isfinite(first).all()
        np.testing.assert_allclose(second, first, rtol=0, atol=TOLERANCE * np.abs(first).max())


def added_biases(before, after):
    """The parameters of biases that layers have only to hold folded constants."""
    layers = {call.layer.name: call.layer for call in before.trace.calls}
    now = {call.layer.name: call.layer for call in after.trace.calls if getattr(call.layer, "bias", None) is not None}
    return sum(int(np.prod(layer.bias.shape)) for name, layer in now.items() if layers[name].bias is None)


def kinds(analysis):
    """What ties channels, and no longer does when one channel a group, one group or one channel a row is left."""
    found = Counter()
    for call in analysis.trace.calls:
        groups = getattr(call.layer, "groups", 1)
        one_each = hasattr(call.layer, "kernel") and call.layer.kernel.shape[-2] == 1
        found[type(call.layer).__name__, groups > 1, groups > 1 and one_each, call.constants_vary] += 1
    return found


def check(examples, path):
    seen = Counter()

    @given(st.data())
    @settings(max_examples=examples)
    def run_one(data):
        masked_equals_shrunken(data, path, seen)

    run_one()
    assert seen["examples"] >= examples
    # The examples must have something to say.
    assert seen["models that shrink"] > 0.4 * examples
    assert seen["channels removed"] > examples
    assert seen["models with the same groups"] > 0.8 * examples
    assert seen["models saved"] > 0.05 * examples


def test_masked_equals_shrunken_on_any_graph(tmp_path):
    check(8, tmp_path / "small.keras")


@pytest.mark.slow
def test_masked_equals_shrunken_on_a_thousand_graphs(tmp_path):
    check(1000, tmp_path / "small.keras")


def test_constants_in_padded_layers_are_told_if_they_change_the_outputs():
    told = Counter()

    @given(st.data())
    @settings(max_examples=8)
    def run_one(data):
        model = functional(draw_model(data.draw, max_steps=5, pad_constants=True))
        choice = choose(data.draw, analyse(model))
        apply_masks(model, channel_masks(choice, ("producer", "affine")))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            small = shrink(model)
        warned = any("not exactly the masked one" in str(each.message) for each in caught)
        probe = probe_inputs(model)
        pairs = zip(run(model, probe), run(small, probe), strict=True)
        worst = max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)
        assert warned == (worst > RESIDUAL["float32"])
        told[warned] += 1

    run_one()
    assert told[True]
    assert told[False]


def check_selections_and_widths(examples):
    """Zero gammas and betas anywhere: branches lose inputs; and any model can be widened."""
    seen = Counter()

    @given(st.data())
    @settings(max_examples=examples)
    def run_one(data):
        model = draw_model(data.draw)
        analysis = analyse(model)
        random = np.random.default_rng(data.draw(st.integers(0, 99)))
        for each in switched_channels(analysis):
            gone = random.uniform(size=each.structure.size) < 0.5
            if gone.any():
                apply_masks(model, each.carriers.masks(gone))
        inputs = random_inputs(functional(model))
        expected = outputs_of(model, inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The smaller model is not exactly the masked one")
            small = shrink(model, select_inputs=True)
        assert_equal(expected, outputs_of(small, inputs))
        seen["selected"] += any(type(call.layer).__name__ == "Take" for call in analyse(small).trace.calls)
        if analysis.groups.free:
            wide = widen(small, 1.5) if analyse(small).groups.free else small
            assert [out.shape for out in outputs_of(wide, inputs)] == [out.shape for out in expected]
            groups = {group.name: group.size for group in analyse(small).groups.free}
            seen["wider"] += any(g.size > groups.get(g.name, g.size) for g in analyse(wide).groups.free)

    run_one()
    return seen


def test_selections_and_widths_of_any_graph():
    seen = check_selections_and_widths(4)
    assert seen["wider"] >= 2


@pytest.mark.slow
def test_selections_and_widths_of_three_hundred_graphs():
    seen = check_selections_and_widths(300)
    assert seen["selected"] > 5
    assert seen["wider"] > 200
