import keras
import numpy as np
import pytest
from networks import compiled, images, outputs

from tfprune.graph import channel_groups
from tfprune.layers import ScalingFactor, scaling_factors

L = keras.layers


def test_one_factor_multiplies_everything():
    layer = ScalingFactor()
    x = np.arange(6, dtype="float32").reshape(2, 3)
    assert np.array_equal(layer(x), x)
    assert layer.factor.shape == ()
    layer.factor.assign(-0.5)
    assert np.array_equal(layer(x), x * -0.5)


def test_one_factor_per_channel():
    layer = ScalingFactor("channel")
    x = np.ones((2, 4, 3), "float32")
    assert np.array_equal(layer(x), x)
    layer.factor.assign([1.0, 0.0, 2.0])
    assert np.array_equal(layer(x)[1, 2], [1.0, 0.0, 2.0])


def test_mixed_precision_keeps_the_factor_in_float32():
    layer = ScalingFactor(dtype="mixed_float16")
    assert layer(np.ones((1, 2), "float16")).dtype == "float16"
    assert layer.factor.dtype == "float32"


def test_config_round_trip_and_saved_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), L.Dense(4), ScalingFactor("channel", name="factor")])
    model.get_layer("factor").factor.assign([1.0, 2.0, 3.0, 4.0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("factor").get_config() == model.get_layer("factor").get_config()
    x = np.ones((2, 3), "float32")
    assert np.array_equal(outputs(model, x)[0], outputs(loaded, x)[0])


def test_a_mask_passes():
    embedding = L.Embedding(5, 2, mask_zero=True)
    x = ScalingFactor()(embedding(np.array([[1, 0]])))
    assert np.array_equal(keras.src.backend.get_keras_mask(x), [[True, False]])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_trains_with_the_models_own_optimizer(jit_compile):
    model = keras.Sequential([keras.Input((8, 8, 2)), L.Flatten(), L.Dense(3), ScalingFactor(name="factor")])
    compiled(model, jit_compile=jit_compile).fit(*images(8), batch_size=4, verbose=0)
    assert model.get_layer("factor").factor.numpy() != 1.0


def test_groups_know_the_factors():
    model = keras.Sequential([keras.Input((3,)), L.Dense(4, name="hidden"), ScalingFactor("channel"), L.Dense(2)])
    group = channel_groups(model).free[0]
    assert "factor" in [member.variable.name for member in group.with_role("affine")]
    model.layers[1].factor.assign([1.0, 0.0, 1.0, 0.0])
    assert len(channel_groups(model).removable) == 2


def test_found_once_also_inside_nested_models():
    shared = ScalingFactor(name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared, ScalingFactor(name="inner")])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(shared(inner(inputs))))
    assert [layer.name for layer in scaling_factors(model)] == ["shared", "inner"]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"per must be 'block' or 'channel'. Received: 'filter'"):
        ScalingFactor("filter")
    with pytest.raises(ValueError, match="needs a fixed number of channels"):
        ScalingFactor("channel", name="factor")(keras.Input((3, None)))
