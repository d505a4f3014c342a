"""Layers of the user's without a rule: followed by what they compute, or frozen with the reason."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons
from keras import ops

import tfprune
from tfprune.graph import channel_groups

layers = keras.layers
registered = keras.saving.register_keras_serializable("whole_layers")


@registered
class DropPath(layers.Layer):
    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed = rate, keras.random.SeedGenerator(0)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}

    def call(self, x, training=None):
        if not training:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return x * ops.floor(1 - self.rate + keras.random.uniform(shape, seed=self.seed)) / (1 - self.rate)


@registered
class HardSwish(layers.Layer):
    def call(self, x):
        return x * ops.relu6(x + 3.0) / 6.0


@registered
class LearnedScale(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma", initializer="ones")

    def call(self, x):
        return x * self.gamma


@registered
class SizedScale(LearnedScale):
    """Its constructor is told the number of channels."""

    def __init__(self, dim, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def get_config(self):
        return {**super().get_config(), "dim": self.dim}

    def build(self, shape):
        super().build((self.dim,))


@registered
class Affine(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(1, 1, 1, shape[-1]), name="scale", initializer="ones")
        self.shift = self.add_weight(shape=(1, 1, 1, shape[-1]), name="shift", initializer="zeros")

    def call(self, x):
        return ops.add(ops.multiply(self.scale, x), self.shift)


@registered
class ScalarAffine(layers.Layer):
    """One number for all channels, as in HGNet."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(1,), name="scale", initializer="ones")
        self.shift = self.add_weight(shape=(), name="shift", initializer="zeros")

    def call(self, x):
        return self.scale * x + self.shift


@registered
class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(1, *shape[1:]), name="table", initializer="zeros")

    def call(self, x):
        return x + self.table


@registered
class SoftLeak(layers.Layer):
    """A slope per channel that is computed from a variable."""

    def build(self, shape):
        self.slope = self.add_weight(shape=(shape[-1],), name="slope", initializer="zeros")

    def call(self, x):
        return ops.maximum(x, 0) + ops.minimum(x, 0) * ops.sigmoid(self.slope)


def _network(layer, activation=None):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation=activation, name="first")(inputs)
    x = x if layer is None else layer(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="second")(x))
    return keras.Model(inputs, layers.Dense(2, name="classes")(x))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "make",
    [DropPath, HardSwish, LearnedScale, lambda: SizedScale(8), Affine, ScalarAffine, Positions, SoftLeak],
    ids=["drop_path", "hard_swish", "scale", "sized_scale", "affine", "scalar_affine", "positions", "soft_leak"],
)
def test_layers_that_act_on_each_channel_alone(make):
    layer = make()
    small, sizes = assert_shrinks_exactly(_network(layer))
    assert sizes == {"first": 4, "second": 3}
    assert type(small.get_layer(layer.name)) is type(layer)  # no operations in its place


def test_the_copy_still_drops_paths_in_training():
    small = tfprune.prune_channels(_network(DropPath(name="drop")), 0.5)
    x = np.ones((64, 4, 4, 4), "float32")
    dropped = small.get_layer("drop")(x, training=True).numpy().any(axis=(1, 2, 3))
    assert 0 < dropped.sum() < 64


def test_an_addition_with_a_scale_ties_both_inputs():
    @keras.saving.register_keras_serializable("whole_layers")
    class ScaledSum(layers.Layer):
        def build(self, shapes):
            self.gamma = self.add_weight(shape=(shapes[0][-1],), name="gamma")

        def call(self, tensors):
            return tensors[0] + self.gamma * tensors[1]

    inputs = keras.Input((5,))
    x = ScaledSum(name="sum")([layers.Dense(8, name="left")(inputs), layers.Dense(8, name="right")(inputs)])
    small, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(2)(x)))
    assert sizes == {"left": 4}
    assert small.get_layer("right").units == small.get_layer("sum").gamma.shape[0] == 4


def test_a_shared_layer_is_followed_at_every_call():
    inputs, scale = keras.Input((5,)), LearnedScale(name="scale")
    x = scale(layers.Dense(8, name="second")(scale(layers.Dense(8, name="first")(inputs))))
    small, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(2)(x)))
    assert sizes == {"first": 4}
    assert small.get_layer("scale").gamma.shape == (4,)


class DividedByWidth(layers.Layer):
    def call(self, x):
        return x / x.shape[-1]


class FirstChannels(layers.Layer):
    def call(self, x):
        return ops.concatenate([x[..., :4] * 2.0, x[..., 4:]], axis=-1)


class Reversed(LearnedScale):
    def call(self, x):
        return x * ops.flip(self.gamma)


class Centred(layers.Layer):
    def call(self, x):
        return x - ops.mean(x, axis=-1, keepdims=True)


class FixedSize(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=(8,), name="gamma", initializer="ones")

    def call(self, x):
        return x * self.gamma


class OwnDense(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 8), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (DividedByWidth, "depends on how many"),
        (FirstChannels, "by their places"),
        (Reversed, "Flip"),
        (Centred, "reduces over channels"),
        (FixedSize, "cannot be made for fewer channels"),
        (OwnDense, "Matmul"),
    ],
)
def test_what_else_is_done_to_channels_freezes_them(layer, reason):
    model = _network(layer())
    assert reason in frozen_reasons(model, "first")
    assert frozen_reasons(model, "second") == ""
    small = tfprune.prune_channels(model, 0.5)
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (8, 3)


def test_looking_at_a_layer_draws_no_random_numbers():
    import random

    class Noisy(LearnedScale):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    model = _network(Noisy())
    random.seed(1)
    expected = random.random()
    random.seed(1)
    channel_groups(model)
    assert random.random() == expected


def _twice_gelu(x):
    return 2 * keras.activations.gelu(x, approximate=True)


def _shifted(x):
    return ops.tanh(x) + 0.5


registered(_twice_gelu)
registered(_shifted)


@pytest.mark.parametrize("activation", [_twice_gelu, _shifted])
def test_own_activations_are_followed(activation):
    _, sizes = assert_shrinks_exactly(_network(None, activation))
    assert sizes == {"first": 4, "second": 3}


@pytest.mark.parametrize(
    "activation", [lambda x: x - ops.mean(x, axis=-1, keepdims=True), lambda x: x / x.shape[-1], lambda x: x[..., ::-1]]
)
def test_own_activations_that_see_other_channels_freeze_them(activation):
    assert "element by element" in frozen_reasons(_network(None, activation), "first")


@registered
class Head(layers.Layer):
    """As in detectors: it flattens maps of any size to a list of boxes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")
        self.norm = layers.BatchNormalization(name="norm")
        self.out = layers.Conv2D(4, 3, padding="same", name="out")

    def build(self, shape):
        self.inner.build(shape)
        self.norm.build((*shape[:-1], 8))
        self.out.build((*shape[:-1], 8))

    def call(self, x):
        x = self.out(self.norm(self.inner(x)))
        return ops.reshape(x, (ops.shape(x)[0], -1, 2))


def _pyramid(head):
    inputs = keras.Input((16, 16, 3))
    fine = layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="fine")(inputs)
    coarse = layers.Conv2D(8, 3, 2, padding="same", activation="relu", name="coarse")(fine)
    return keras.Model(inputs, layers.Concatenate(axis=1)([head(fine), head(coarse)]))


def test_one_head_for_maps_of_several_sizes():
    model = _pyramid(Head(name="head"))
    small, sizes = assert_shrinks_exactly(model)
    assert sizes == {"fine": 4, "inner": 4}  # the head ties both levels
    assert len([node for node in tfprune.graph.walk(small) if node.operation.name == "head"]) == 2
    assert small.count_params() == (27 * 4 + 4) + (36 * 4 + 4) + (36 * 4 + 4) + 16 + (36 * 4 + 4)  # shared once


def test_a_head_costs_what_each_of_its_calls_does():
    profile = tfprune.profile(_pyramid(Head(name="head")))
    head = (8 * 8 + 4 * 4) * 9 * (8 * 8 + 8 * 4)
    assert profile.macs == 64 * 27 * 8 + 16 * 72 * 8 + head


class SizedHead(Head):
    """One that works for a single size cannot be one model for several."""

    def call(self, x):
        x = self.out(self.inner(x))
        return ops.reshape(x, (-1, x.shape[1] * x.shape[2], 4)) * (1.0 / x.shape[1])


def test_a_head_that_depends_on_the_size_is_frozen():
    model = _pyramid(SizedHead(name="head"))
    assert "no rule for SizedHead 'head'" in frozen_reasons(model, "fine")
    with pytest.warns(UserWarning, match="No channel"):
        same = tfprune.shrink(model)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(same(x), model(x), rtol=1e-5)
