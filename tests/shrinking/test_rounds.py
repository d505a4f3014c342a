"""Pruning in rounds: as much as at once, by scores of what is left."""

import keras
import numpy as np
import pytest
from networks import chain, densely_connected, images, preactivation, randomize, residual, same, weights_of

import tfprune
from tfprune import Budget, Ranking, Rounds, Widths
from tfprune.criteria import ChannelCriterion
from tfprune.shrinking.budget import measure
from tfprune.statistics import gather

L = keras.layers


def two_layers():
    """Filters of b whose norms depend on which channels of a they still read."""
    layers = [keras.Input((1,)), *(L.Dense(n, use_bias=False, name=name) for n, name in ((4, "a"), (4, "b"), (1, "c")))]
    model = keras.Sequential(layers)
    kernel = np.zeros((4, 4))
    kernel[:, 0], kernel[:, 1] = (9.0, 0.0, 0.0, 3.0), (0.0, 0.0, 5.0, 4.0)
    model.set_weights([np.array([[1.0, 2.0, 3.0, 4.0]]), kernel + 0.1, np.ones((4, 1))])
    return model


def test_later_rounds_score_what_is_left():
    # After the first of two rounds a has its last two channels, from which the filters of b have norms of 3 and 6.4.
    for rounds, kept in ((1, 3.1), (2, 4.1)):
        small = tfprune.prune_channels(two_layers(), 0.75, rounds=rounds)
        np.testing.assert_allclose(small.get_layer("b").kernel.numpy(), [[kept]])


@pytest.mark.parametrize("ranking", ["local", "global"])
@pytest.mark.parametrize("make", [chain, residual, preactivation, densely_connected])
@pytest.mark.sampled(1)
def test_as_many_go_in_rounds_as_at_once(make, ranking):
    model = randomize(make())
    before = weights_of(model)
    at_once = tfprune.prune_channels(model, 0.6, ranking=ranking)
    in_rounds = tfprune.prune_channels(model, 0.6, ranking=ranking, rounds=3)
    assert same(before, weights_of(model))
    if ranking == "local":
        assert Widths.of(in_rounds) == Widths.of(at_once)
    else:
        assert sum(Widths.of(in_rounds).values()) == sum(Widths.of(at_once).values())


def test_what_a_round_removes_stays_removed():
    """Scores that turn round once the first channels have gone."""

    class Turning(ChannelCriterion):
        def score(self, view):
            return np.arange(view.size) * (1.0 if view.size == 8 else -1.0) + 10.0

    model = randomize(chain((8, 8)))
    small = tfprune.prune_channels(model, 0.5, criterion=Turning(), rounds=2)
    # First 8 - floor(8 * 0.29) = 6 stay, without the first two; then the last two of them go.
    kernel = model.get_layer("first").kernel.numpy()
    assert np.array_equal(small.get_layer("first").kernel.numpy(), kernel[..., [2, 3, 4, 5]])


def test_training_between_rounds_is_kept():
    model, widths = randomize(chain((8, 8))), []

    def between(smaller):
        widths.append(smaller.get_layer("first").filters)
        bias = smaller.get_layer("classes").bias
        bias.assign(np.full(3, float(len(widths))))

    small = tfprune.prune_channels(model, 0.75, rounds=Rounds(3, between))
    assert widths == [6, 4]  # 8 - floor(8 * (1 - 0.25 ** (1 / 3))), 8 - floor(8 * (1 - 0.25 ** (2 / 3)))
    assert small.get_layer("first").filters == 2
    assert small.get_layer("classes").bias.numpy().tolist() == [2.0] * 3


def test_widths_and_exclude_hold_in_rounds():
    model = randomize(residual(8, 6))
    small = tfprune.prune_channels(model, Widths({"stem": 3}), rounds=2)
    assert tfprune.choose_widths(model, Widths({"stem": 3}), rounds=2) == Widths.of(small)
    assert Widths.of(small) == {"stem": 3, "head": 6}
    small = tfprune.prune_channels(model, 0.5, exclude=[model.get_layer("head")], rounds=2)
    assert Widths.of(small) == {"stem": 4, "head": 6}


def information(model, x):
    return gather(model, x, ["gate_gradient_squared"], temperature=4.0)


def test_data_is_asked_again_in_every_round():
    model, x = randomize(residual(8, 6)), images(16)[0]
    small = tfprune.prune_channels(model, budget=Budget(macs=0.5), data=x, rounds=2)
    assert 0.4 * measure(model)["macs"] < measure(small)["macs"] <= 0.5 * measure(model)["macs"]
    first = tfprune.prune_channels(model, budget=Budget(macs=0.5**0.5), data=information(model, x))
    tfprune.recalibrate(first, x)
    limit = 0.5 * measure(model)["macs"] / measure(first)["macs"]
    by_hand = tfprune.prune_channels(first, budget=Budget(macs=limit), data=information(first, x))
    tfprune.reconstruct(by_hand, model, x)
    assert Widths.of(by_hand) == Widths.of(small)
    assert same(weights_of(by_hand), weights_of(small))


@pytest.mark.parametrize("rounds", [Ranking(), 1.5, True, Rounds])
def test_rounds_that_are_none(rounds):
    with pytest.raises(ValueError, match="rounds must be a whole number of at least 1"):
        tfprune.prune_channels(two_layers(), 0.5, rounds=rounds)


def test_what_happens_between_must_be_a_function():
    with pytest.raises(TypeError, match="between must be a function that trains a model"):
        Rounds(2, between=3)
