"""Zeros and constants, followed through small nets whose levels are known."""

import keras
import numpy as np
import pytest
from networks import chain, randomize, residual

from tfprune.graph import analyse
from tfprune.graph.liveness import CONSTANT, LIVE, ZERO, arrivals, dead_labels, stranded, unfoldable

L = keras.layers


def levels(model, alive=None):
    """What arrives, by the name of the layer that reads it."""
    analysis = analyse(model)
    return {
        arrival.call.layer.name: arrival.level.tolist()
        for arrival in arrivals(analysis.trace, analysis.labels, alive)
        if arrival.binding.variable is arrival.call.layer.kernel
    }


def dense_net(activation=None, between=(), use_bias=True):
    """Three hidden units; the second one has a zero kernel and no bias."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            L.Dense(3, activation, use_bias=use_bias, name="hidden"),
            *between,
            L.Dense(2, name="end"),
        ]
    )
    randomize(model)
    for variable in model.get_layer("hidden").weights:
        value = variable.numpy()
        value[..., 1] = 0.0
        variable.assign(value)
    return model


@pytest.mark.parametrize(
    "activation", [None, "linear", "relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "softsign"]
)
def test_zero_stays_zero(activation):
    assert levels(dense_net(activation))["end"] == [LIVE, ZERO, LIVE]


@pytest.mark.parametrize("activation", ["sigmoid", "softplus", "exponential", "hard_sigmoid"])
def test_zero_becomes_a_constant(activation):
    assert levels(dense_net(activation))["end"] == [LIVE, CONSTANT, LIVE]


def test_a_bias_makes_a_constant():
    model = dense_net("relu")
    model.get_layer("hidden").bias.assign([0.0, 0.5, 0.0])
    assert levels(model)["end"] == [LIVE, CONSTANT, LIVE]


@pytest.mark.parametrize(("gamma", "beta", "level"), [(0.0, 0.0, ZERO), (0.0, 0.3, CONSTANT), (0.3, 0.0, LIVE)])
def test_gamma_and_beta_of_a_living_channel(gamma, beta, level):
    model = randomize(chain())
    bn = model.get_layer("first_bn")
    for variable, value in ((bn.gamma, gamma), (bn.beta, beta)):
        values = variable.numpy()
        values[2] = value
        variable.assign(values)
    assert levels(model)["second"] == [LIVE, LIVE, level, LIVE]


def test_the_moving_mean_of_a_zero_channel_makes_a_constant_unless_gamma_is_zero():
    """BatchNormalization gives (0 - mean) * gamma / deviation + beta."""
    model = randomize(chain())
    first, bn = model.get_layer("first"), model.get_layer("first_bn")
    kernel = first.kernel.numpy()
    kernel[..., 0] = 0.0
    first.kernel.assign(kernel)
    bn.beta.assign(np.zeros(4))
    bn.moving_mean.assign([0.7, 0.0, 0.0, 0.0])
    assert levels(model)["second"] == [CONSTANT, LIVE, LIVE, LIVE]
    bn.gamma.assign([0.0, 1.0, 1.0, 1.0])
    assert levels(model)["second"] == [ZERO, LIVE, LIVE, LIVE]


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        ("zero", "zero", ZERO),
        ("zero", "constant", CONSTANT),
        ("constant", "constant", CONSTANT),
        ("zero", "live", LIVE),
    ],
)
@pytest.mark.parametrize("merge", [L.Add, L.Subtract, L.Average])
def test_a_sum_carries_the_most_of_its_terms(first, second, level, merge):
    assert merged(merge, first, second)[0] == level


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        ("zero", "live", ZERO),
        ("live", "zero", ZERO),
        ("zero", "constant", ZERO),
        ("constant", "constant", CONSTANT),
        ("constant", "live", LIVE),
    ],
)
def test_a_product_is_zero_where_a_factor_is(first, second, level):
    assert merged(L.Multiply, first, second)[0] == level


def merged(merge, *kinds):
    """What arrives behind a merge of one channel that is zero, constant or live, and one that lives."""
    inputs = keras.Input((2,))
    branches = [L.Dense(2, name=f"branch_{index}") for index in range(len(kinds))]
    model = randomize(keras.Model(inputs, L.Dense(1, name="end")(merge()([branch(inputs) for branch in branches]))))
    for branch, kind in zip(branches, kinds, strict=True):
        kernel, bias = branch.kernel.numpy(), branch.bias.numpy()
        if kind != "live":
            kernel[:, 0] = 0.0
            bias[0] = 0.0 if kind == "zero" else 0.4
        branch.set_weights([kernel, bias])
    found = levels(model)["end"]
    assert found[1] == LIVE
    return found


def test_a_depthwise_kernel_of_zeros_ends_a_channel():
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            L.Conv2D(3, 1, name="first"),
            L.DepthwiseConv2D(3, name="depth"),
            L.Conv2D(2, 1, name="end"),
        ]
    )
    depth = randomize(model).get_layer("depth")
    kernel, bias = depth.kernel.numpy(), depth.bias.numpy()
    kernel[:, :, 1:] = 0.0
    depth.set_weights([kernel, bias * [1, 0, 1]])
    assert levels(model)["end"] == [LIVE, ZERO, CONSTANT]


def test_without_the_labels_that_are_not_alive():
    """Asked what masks would make of it: the same as masking."""
    model = randomize(residual())
    analysis = analyse(model)
    group = next(group for group in analysis.groups if group.name == "stem")
    alive = analysis.alive(group.labels[[1, 3]])
    asked = levels(model, alive)
    assert asked["head"] == [LIVE, ZERO, LIVE, ZERO, LIVE]
    assert asked["branch"] == [LIVE, ZERO, LIVE, ZERO, LIVE]
    assert levels(model)["head"] == [LIVE] * 5


class TestDead:
    def dead(self, model, name="hidden"):
        analysis = analyse(model)
        group = next(group for group in analysis.groups if group.name == name)
        return dead_labels(analysis.trace, analysis.labels)[group.labels].tolist()

    @pytest.mark.parametrize("activation", ["relu", "sigmoid"])
    def test_zeros_and_constants_that_can_be_folded(self, activation):
        assert self.dead(dense_net(activation)) == [False, True, False]

    def test_a_constant_for_a_transposed_convolution_is_not_dead(self):
        model = keras.Sequential(
            [keras.Input((4, 4, 1)), L.Conv2D(2, 1, activation="sigmoid", name="hidden"), L.Conv2DTranspose(1, 2)]
        )
        randomize(model)
        model.get_layer("hidden").set_weights([np.array([[[[0.0, 1.0]]]]), np.zeros(2)])
        assert self.dead(model) == [False, False]

    def test_all_readers_must_find_it_dead(self):
        """The gate of one reader hides the channel, the other reader still sees it."""
        inputs = keras.Input((2,))
        x = L.Dense(3, name="hidden")(inputs)
        bn = L.BatchNormalization(name="bn")
        outputs = [L.Dense(1, name="a")(bn(x)), L.Dense(1, name="b")(x)]
        model = randomize(keras.Model(inputs, outputs))
        bn.gamma.assign([0.0, 1.0, 1.0])
        assert levels(model) == {"hidden": [LIVE] * 2, "a": [CONSTANT, LIVE, LIVE], "b": [LIVE] * 3}
        assert self.dead(model) == [False] * 3

    def test_of_a_tie_only_what_all_makers_lost(self):
        model = randomize(residual())
        for name, gone in (("stem", [0, 1]), ("branch", [1, 2])):
            bn = model.get_layer(f"{name}_bn")
            for variable in (bn.gamma, bn.beta):
                value = variable.numpy()
                value[gone] = 0.0
                variable.assign(value)
        assert self.dead(model, "stem") == [False, True, False, False, False]


class TestStranded:
    def stranded(self, model):
        """The layers where something strands, other than the model's inputs."""
        analysis = analyse(model)
        none = np.zeros(analysis.trace.num_channels, bool)
        made = np.concatenate([group.labels for group in analysis.groups])
        found = stranded(analysis.trace, analysis.labels, none)
        return [call.layer.name for call, channels in found if np.isin(analysis.labels[channels], made).all()]

    def test_constants_reach_a_layer_that_is_called_twice(self):
        inputs = keras.Input((2,))
        end = L.Dense(1, name="end")
        x = [end(L.Dense(3, "sigmoid", name=name)(inputs)) for name in "ab"]
        model = randomize(keras.Model(inputs, L.Add()(x)))
        assert self.stranded(model) == ["end", "end"]
        frozen = {group.name: " ".join(group.frozen) for group in analyse(model).groups}
        assert all("'end' cannot absorb" in reasons for name, reasons in frozen.items() if name != "end")

    def test_zeros_strand_nowhere(self):
        assert self.stranded(randomize(residual())) == []

    def test_a_dense_layer_absorbs(self):
        model = dense_net("sigmoid")
        assert self.stranded(model) == []
        analysis = analyse(model)
        (arrival,) = [each for each in arrivals(analysis.trace, analysis.labels) if each.call.layer.name == "end"]
        assert arrival.level.tolist() == [LIVE, CONSTANT, LIVE]
        assert unfoldable(analysis.trace, arrival).size == 0
