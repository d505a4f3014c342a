"""What every criterion of channels promises. A new criterion adds one row to ROWS and inherits all of it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from networks import (
    chain,
    compiled,
    images,
    kill,
    outputs,
    randomize,
    relative_difference,
    residual,
    same,
    weights_of,
    zero_filters,
)

import tfprune
from tfprune import Ranking
from tfprune.callbacks import FilterPruning
from tfprune.criteria import BatchNormGamma, GammaBeta, GroupNorm, Norm, geometric_median_distance, l1_norm, l2_norm
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of

L = keras.layers


@dataclass(frozen=True)
class Row:
    """One criterion.

    Attributes:
        name: What the test's id shows.
        criterion: The criterion.
        everywhere: Whether it scores every kind of channel, not only those behind a normalization.
    """

    name: str
    criterion: Callable
    everywhere: bool = True


ROWS = [
    Row("l1_norm", l1_norm),
    Row("l2_norm", l2_norm),
    Row("geometric_median_distance", geometric_median_distance),
    Row("GroupNorm", GroupNorm()),
    Row("GroupNorm-1", GroupNorm(p=1)),
    Row("Norm-3", Norm(3)),
    Row("BatchNormGamma", BatchNormGamma(), everywhere=False),
    Row("GammaBeta", GammaBeta(), everywhere=False),
]
CHANNELS = 4


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


def lstm():
    layers = [keras.Input((5, 3)), L.LSTM(CHANNELS, name="first"), L.Dense(2)]
    return keras.Sequential(layers)


def flattened():
    layers = [keras.Input((4, 4, 2)), L.Conv2D(CHANNELS, 3, name="first"), L.Flatten(), L.Dense(2)]
    return keras.Sequential(layers)


def networks(row):
    """Every kind of channel that the criterion scores: of four channels each, in the first group."""
    made = [chain((CHANNELS, 6), normalized=True), residual(width=CHANNELS, normalized=True)]
    return [randomize(model) for model in made + ([lstm(), flattened()] if row.everywhere else [])]


def scores(model, row):
    group = channel_groups(model).free[0]
    assert group.size == CHANNELS
    return Ranking().scores(group, row.criterion)


def permute(model, order):
    """Reorder the channels of the first group, in everything that makes, carries and reads them."""
    group = channel_groups(model).free[0]
    for member in group.members:
        value = member.variable.numpy()
        places = np.moveaxis(value, member.axis, 0)
        new = places.copy()
        for channel in range(group.size):
            new[member.positions[member.channels == channel]] = places[
                member.positions[member.channels == order[channel]]
            ]
        member.variable.assign(np.moveaxis(new, 0, member.axis))


def test_gives_one_finite_score_per_channel_and_leaves_the_model_alone(row):
    for model in networks(row):
        before = weights_of(model)
        found = scores(model, row)
        assert found.shape == (CHANNELS,)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()
        assert len(set(found.tolist())) > 1
        assert same(before, weights_of(model))
        assert scores(model, row).tolist() == found.tolist()


@pytest.mark.sampled(1)
def test_channels_that_change_places_take_their_scores_along(row):
    order = np.array([2, 0, 3, 1])
    for model in networks(row):
        before, x = scores(model, row), np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
        computed = outputs(model, x)
        permute(model, order)
        assert relative_difference(computed, outputs(model, x)) < 1e-5
        np.testing.assert_allclose(scores(model, row), before[order], rtol=1e-9)


@pytest.mark.sampled(1)
def test_larger_weights_do_not_score_lower(row):
    """All kernels and gammas of a group twice as large: the same order."""
    for model in networks(row):
        before = scores(model, row)
        members = channel_groups(model).free[0].members
        for variable in {id(each.variable): each.variable for each in members if each.role != "statistics"}.values():
            variable.assign(2 * variable.numpy())
        after = scores(model, row)
        assert (after > before).all()
        assert (np.diff(after[np.argsort(before)]) > -1e-9 * after.max()).all()


@pytest.mark.sampled(3)
def test_sees_only_the_channels_that_are_asked_for(row):
    among = np.array([True, False, True, True])
    for model in networks(row):
        group = channel_groups(model).free[0]
        found = Ranking().scores(group, row.criterion, among)
        assert np.isinf(found).tolist() == (~among).tolist()
        assert view_of(group, among).size == 3
        axes = Counter(member.variable.path for member in group.members)
        for member in group.members:  # whatever the other channel holds, where it has no part in these
            if axes[member.variable.path] > 1:
                continue
            value = np.moveaxis(member.variable.numpy(), member.axis, 0).copy()
            value[member.positions[member.channels == 1]] = 7.0
            member.variable.assign(np.moveaxis(value, 0, member.axis))
        np.testing.assert_allclose(Ranking().scores(group, row.criterion, among), found, rtol=1e-9)


def test_half_precision_does_not_overflow(row):
    keras.config.set_dtype_policy("float16")
    try:
        model = chain((CHANNELS, 6), normalized=True)
        for weight in model.weights:
            weight.assign(np.full(weight.shape, 60000.0))
        kernel = model.get_layer("first").kernel
        kernel.assign(kernel.numpy() * np.linspace(0.25, 1, CHANNELS, dtype="float16"))
        assert np.isfinite(scores(model, row)).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_zero_channels_go_first(row):
    model = randomize(chain((CHANNELS, 6), normalized=True))
    kill(model.get_layer("first"), [2])
    assert np.argmin(scores(model, row)) == 2
    small = tfprune.prune_channels(model, 0.25, criterion=row.criterion)
    assert small.get_layer("first").filters == 3
    assert zero_filters(small.get_layer("first")) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scope", ["local", "global", "structure"])
def test_prunes_at_once_and_during_fit_alike(row, scope):
    model = compiled(randomize(residual(normalized=True)), run_eagerly=True)
    small = tfprune.prune_channels(model, 0.4, criterion=row.criterion, ranking=scope)
    callback = FilterPruning(0.4, row.criterion, ranking=scope, mode="hard")
    callback.set_model(model)
    callback.set_params({"epochs": 1})
    callback.on_train_begin()
    callback.on_train_end()
    shrunken = tfprune.shrink(model)
    names = ("stem", "branch", "head")
    widths = [small.get_layer(name).filters for name in names]
    assert [shrunken.get_layer(name).filters for name in names] == widths
    assert widths[0] + widths[2] == 12 - 4
    x, _ = images(4)
    assert relative_difference(outputs(small, x), outputs(shrunken, x)) < 1e-5
