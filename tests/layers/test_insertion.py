import keras
import numpy as np
import pytest
from keras import ops
from networks import chain, compiled, images, outputs, randomize, relative_difference, residual, same, weights_of

from tfprune.layers import ScalingFactor, scaling_factors, with_scaling_factors

L = keras.layers


def names(model):
    return [layer.name for layer in scaling_factors(model)]


def assert_unchanged(model, scaled, x):
    assert relative_difference(outputs(model, x), outputs(scaled, x)) < 1e-6
    assert scaled.count_params() == model.count_params() + sum(f.count_params() for f in scaling_factors(scaled))


def projected(count=2):
    """Residual blocks of two convolutions, the first of which has a projection, and a classifier."""
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    for block in range(count):
        width = 6
        shortcut = x if block else L.BatchNormalization()(L.Conv2D(width, 1, name="projection")(x))
        y = L.Conv2D(width, 3, padding="same", activation="relu", name=f"first{block}")(x)
        y = L.BatchNormalization()(L.Conv2D(width, 3, padding="same", name=f"second{block}")(y))
        x = L.ReLU()(L.Add(name=f"add{block}")([y, shortcut] if block else [shortcut, y]))
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("where", ["blocks", "channels", lambda layer: isinstance(layer, L.Conv2D)])
def test_the_copy_computes_the_same(where):
    model = randomize(projected())
    before = weights_of(model)
    scaled = with_scaling_factors(model, where)
    assert_unchanged(model, scaled, images(4)[0])
    assert same(before, weights_of(model))
    assert not scaling_factors(model)


def test_blocks_get_one_factor_at_the_end_of_the_branch():
    scaled = with_scaling_factors(projected())
    assert names(scaled) == ["add0_factor", "add1_factor"]
    readers = [scaled.get_layer(name)._inbound_nodes[0].input_tensors[0] for name in names(scaled)]
    assert [tensor._keras_history.operation.name for tensor in readers] == [
        "batch_normalization_1",
        "batch_normalization_2",
    ]
    assert all(layer.factor.shape == () for layer in scaling_factors(scaled))


def test_blocks_may_have_factors_per_channel():
    scaled = with_scaling_factors(projected(), per="channel")
    assert [layer.factor.shape for layer in scaling_factors(scaled)] == [(6,), (6,)]


def test_additions_that_are_no_residual_blocks_get_none():
    inputs = keras.Input((8, 8, 2))
    first, second = (L.Conv2D(4, 3, padding="same")(inputs) for _ in range(2))
    both = L.Add(name="two_of_a_kind")([first, second])
    deep = L.Conv2D(4, 3, padding="same")(L.Conv2D(4, 3, padding="same")(both))
    lateral = L.Add(name="read_elsewhere")([L.Conv2D(4, 1)(both), deep])
    model = keras.Model(inputs, [lateral, deep])
    with pytest.raises(ValueError, match="finds no place for a scaling factor"):
        with_scaling_factors(model)


def test_plus_and_shared_addition_layers():
    inputs = keras.Input((4,))
    add = L.Add(name="twice")
    x = add([inputs, L.Dense(4)(inputs)])
    x = add([L.Dense(4)(x), x])
    x = x + L.Dense(4)(x)
    model = randomize(keras.Model(inputs, x))
    scaled = with_scaling_factors(model)
    assert len(names(scaled)) == 3
    assert names(scaled)[:2] == ["twice_factor", "twice_factor_1"]
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    assert_unchanged(model, scaled, x)
    scaled.get_layer("twice_factor_1").factor.assign(0.0)
    assert relative_difference(outputs(model, x), outputs(scaled, x)) > 1e-3


class Block(L.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(width, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return ops.relu(self.conv(x)) + x


class Network(keras.Model):
    def __init__(self):
        super().__init__(name="network")
        self.blocks = [Block(2, name=f"block_{index}") for index in range(2)]
        self.classes = L.Dense(3, name="classes")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.classes(ops.mean(x, axis=(1, 2)))


def test_inside_layers_made_of_layers():
    model = Network()
    x, _ = images(4)
    model(x)
    scaled = with_scaling_factors(randomize(model))
    assert len(names(scaled)) == 2
    assert_unchanged(model, scaled, x)


def test_inside_a_nested_model_that_is_called_twice():
    inner_inputs = keras.Input((4,))
    inner = keras.Model(inner_inputs, L.Add(name="inside")([inner_inputs, L.Dense(4)(inner_inputs)]))
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, inner(inner(inputs))))
    scaled = with_scaling_factors(model)
    assert names(scaled) == ["inside_factor"]
    assert_unchanged(model, scaled, np.ones((2, 4), "float32"))


def test_channels_go_behind_the_normalization_and_stay_sequential():
    model = compiled(randomize(chain()), keras.optimizers.SGD(0.5))
    scaled = with_scaling_factors(model, "channels")
    assert type(scaled) is keras.Sequential
    assert [layer.name for layer in scaled.layers][:4] == ["first", "first_bn", "first_factor", "re_lu"]
    assert [layer.factor.shape for layer in scaling_factors(scaled)] == [(4,), (6,)]
    assert scaled.optimizer.get_config() == model.optimizer.get_config()
    assert scaled.optimizer is not model.optimizer
    assert_unchanged(model, scaled, images(4)[0])


def test_channels_that_several_layers_make_get_none():
    assert names(with_scaling_factors(residual(), "channels")) == ["head_factor"]


def test_a_list_of_layers():
    model = randomize(chain())
    scaled = with_scaling_factors(model, [model.get_layer("second")])
    assert names(scaled) == ["second_factor"]
    assert scaled.get_layer("second_factor").factor.shape == ()
    with pytest.raises(ValueError, match="where holds layers that are not in the model"):
        with_scaling_factors(model, [L.Dense(1)])


def test_a_second_time_there_is_no_place_left():
    scaled = with_scaling_factors(residual())
    with pytest.raises(ValueError, match="finds no place for a scaling factor in 'residual' that has none yet"):
        with_scaling_factors(scaled)
    assert names(with_scaling_factors(scaled, "channels")) == ["add_factor", "head_factor"]


def test_names_and_precision_follow_the_model():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        scaled = with_scaling_factors(residual())
    finally:
        keras.config.set_dtype_policy("float32")
    assert scaled.get_layer("add_factor").compute_dtype == "float16"
    assert scaled.name == "residual"


def test_bad_input():
    with pytest.raises(ValueError, match="where must be 'blocks', 'channels', a list"):
        with_scaling_factors(residual(), "stages")
    with pytest.raises(TypeError, match="where must be a list of layer objects"):
        with_scaling_factors(residual(), 3)
    with pytest.raises(ValueError, match="finds no place"):
        with_scaling_factors(residual(), lambda layer: False)
    with pytest.raises(ValueError, match="finds no place"):
        with_scaling_factors(chain())
    with pytest.raises(ValueError, match="per must be"):
        with_scaling_factors(residual(), per="filter")
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        with_scaling_factors(L.Dense(1))
    inputs = keras.Input((4, 2))
    outs = L.LSTM(3, return_state=True, name="lstm")(inputs)
    model = keras.Model(inputs, outs)
    with pytest.raises(ValueError, match="'lstm' has 3 outputs"):
        with_scaling_factors(model, [model.get_layer("lstm")])


def test_the_copy_is_saved_and_loaded(tmp_path):
    scaled = with_scaling_factors(randomize(residual()))
    scaled.save(tmp_path / "scaled.keras")
    loaded = keras.models.load_model(tmp_path / "scaled.keras")
    assert type(loaded.get_layer("add_factor")) is ScalingFactor
    assert relative_difference(outputs(scaled, images(4)[0]), outputs(loaded, images(4)[0])) < 1e-6
