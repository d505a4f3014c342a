"""Layers that stay as they are come back as they are, whatever their configs say."""

import keras
import numpy as np
import pytest
from keras import ops

import tfprune
from tfprune.rewriting.object_copies import copied_object

layers = keras.layers


class Everything(layers.Layer):
    """It holds layers in lists, dicts and models, variables, a seed and a lambda; and it has no config."""

    def __init__(self, function, inner, **kwargs):
        super().__init__(**kwargs)
        self.function, self.steps, self.named = function, [layers.Dense(6), layers.Dropout(0.5, seed=3)], {"end": inner}
        self.model = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])

    def build(self, shape):
        self.gamma = self.add_weight(shape=(4,), initializer="random_normal", regularizer="l2", name="gamma")

    def call(self, x, training=None):
        for step in self.steps:
            x = step(x, training=training)
        return self.named["end"](self.model(x, training=training) * ops.exp(self.gamma)) + self.function(0.5)


class Forgetful(layers.Layer):
    """Its config leaves out a setting that its constructor has a default for."""

    def __init__(self, units, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.factor = units, factor

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel) * self.factor


class Mismatched(Forgetful):
    def get_config(self):
        return {**super().get_config(), "colour": "red"}


def _model(layer):
    inputs = keras.Input((5,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layer(layers.Dense(6, name="before")(x))))


X = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")


def test_a_copy_has_variables_of_its_own_in_the_same_places():
    layer = Everything(lambda x: 2 * x, layers.Dense(3))
    model = _model(layer)
    twin = copied_object(layer)
    assert [variable.path for variable in twin.variables] == [variable.path for variable in layer.variables]
    assert [v.trainable for v in twin.variables] == [v.trainable for v in layer.variables]
    assert not {id(v) for v in twin.variables} & {id(v) for v in layer.variables}
    data = np.ones((2, 6), "float32")
    np.testing.assert_array_equal(twin(data), layer(data))
    assert float(twin.losses[0]) == float(layer.losses[0]) > 0
    before = model.predict(X, verbose=0)
    for variable in twin.trainable_variables:
        variable.assign(variable + 1.0)
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)


@pytest.mark.parametrize(
    "layer",
    [Everything(lambda x: 2 * x, layers.Dense(3)), Forgetful(4, factor=3.0), Mismatched(4, factor=3.0)],
    ids=["everything", "forgetful", "mismatched"],
)
def test_layers_that_their_configs_do_not_describe(layer):
    model = _model(layer)
    groups = tfprune.channel_groups(model)
    small = tfprune.prune_channels(model, 0.5)
    assert (small.get_layer("hidden").units, small.get_layer("before").units) == (4, 6)
    same = tfprune.shrink(model, keep={group: np.arange(group.size) for group in groups.free})
    np.testing.assert_allclose(same(X), model(X), rtol=1e-6)
    assert same.get_layer(layer.name).variables[0] is not layer.variables[0]


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_functions_that_nobody_registered():
    def doubled(x):
        return 2 * ops.tanh(x)

    inputs = keras.Input((6, 5))
    x = layers.TimeDistributed(layers.Dense(8, activation=doubled, name="inner"), name="steps")(inputs)
    x = layers.Dense(8, activation=lambda x: ops.relu(x) + 1, name="wide")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(4, activation=doubled, name="gru")(x)))
    small = tfprune.prune_channels(model, 0.5)
    assert small.get_layer("steps").layer.units == 4
    assert small.get_layer("steps").layer.activation is doubled is small.get_layer("gru").activation


class NeedsMore(layers.Layer):
    """A rule resizes it by a config that its constructor does not take."""

    def __init__(self, units, secret, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units)

    def get_config(self):
        return {**layers.Layer.get_config(self), "units": self.dense.units}

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def test_a_config_that_does_not_make_the_layer_is_named():
    from tfprune.graph.making import made_from_config

    layer = NeedsMore(4, "secret", name="needy")
    with pytest.raises(ValueError, match=r"'needy' \(NeedsMore\) .* get_config\(\) has to return"):
        made_from_config(layer, layer.get_config())
