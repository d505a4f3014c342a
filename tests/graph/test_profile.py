import json

import keras
import numpy as np
import pytest
from networks import chain, dense, kill, residual

import tfprune
from tfprune.graph import multiply_accumulates, walk

L = keras.layers


def rows(model):
    return {layer.name: layer for layer in tfprune.profile(model).layers}


def test_convolution_depthwise_and_dense_by_hand():
    model = keras.Sequential(
        [
            keras.Input((8, 6, 3)),
            L.Conv2D(4, 3, strides=2, padding="same", name="conv"),  # 4 x 3 positions
            L.DepthwiseConv2D((3, 2), depth_multiplier=2, name="depthwise"),  # 2 x 2 positions, 8 channels
            L.BatchNormalization(name="bn"),
            L.GlobalAveragePooling2D(),
            L.Dense(5, use_bias=False, name="dense"),
        ]
    )
    found = {name: (row.parameters, row.macs) for name, row in rows(model).items() if row.parameters}
    assert found == {
        "conv": (3 * 3 * 3 * 4 + 4, 4 * 3 * 3 * 3 * 3 * 4),
        "depthwise": (3 * 2 * 8 + 8, 2 * 2 * 3 * 2 * 8),
        "bn": (4 * 8, 0),
        "dense": (8 * 5, 8 * 5),
    }
    result = tfprune.profile(model)
    assert (result.parameters, result.macs) == (112 + 56 + 32 + 40, 1296 + 192 + 40)


def test_a_dense_layer_runs_at_every_position():
    model = keras.Sequential([keras.Input((7, 2)), L.Dense(3)])
    assert tfprune.profile(model).macs == 7 * 2 * 3


def test_a_grouped_convolution_reads_only_its_group():
    model = keras.Sequential([keras.Input((4, 4, 6)), L.Conv2D(8, 1, groups=2, use_bias=False)])
    result = tfprune.profile(model)
    assert (result.parameters, result.macs) == (3 * 8, 16 * 3 * 8)


def test_a_shared_layer_counts_weights_once_and_operations_twice():
    inputs = keras.Input((2,))
    layer = L.Dense(2, name="shared")
    model = keras.Model(inputs, layer(layer(inputs)))
    assert (rows(model)["shared"].parameters, rows(model)["shared"].macs) == (6, 8)


def test_nested_models_are_listed_with_their_names_before():
    inner = keras.Sequential([keras.Input((2,)), L.Dense(3, name="inside")], name="inner")
    inputs = keras.Input((2,))
    model = keras.Model(inputs, L.Dense(1, name="last")(inner(inputs)))
    assert {name: row.macs for name, row in rows(model).items()} == {"inner/inside": 6, "last": 3}


@pytest.mark.parametrize("make", [chain, residual, dense])
def test_parameters_are_those_keras_counts(make):
    model = make()
    assert tfprune.profile(model).parameters == model.count_params()


def test_nonzeros_are_measured():
    model = dense((4, 3))
    kill(model.get_layer("hidden"), [1, 2])
    row = rows(model)["hidden"]
    assert row.parameters == 2 * 4 + 4
    assert row.nonzeros == 2 * 2  # biases start at zero
    assert tfprune.profile(model).nonzeros == 4 + 12


def test_shrinking_shows():
    model = residual()
    kill(model.get_layer("head"), [0, 2, 6])
    before, after = rows(model), rows(tfprune.shrink(model))
    assert after["head"].macs * 7 == before["head"].macs * 4
    assert after["classes"].macs == 4 * 3
    assert after["stem"] == before["stem"]


def test_unknown_sizes_are_refused():
    model = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3, name="conv")])
    with pytest.raises(ValueError, match=r"'conv' works on the shape \(None, None, 2\).*fixed input shape"):
        tfprune.profile(model)


def test_layers_without_multiplications_cost_nothing():
    inputs = keras.Input((4, 4, 2))
    x = L.Add()([L.ReLU()(inputs), L.MaxPooling2D(1)(inputs)])
    assert [multiply_accumulates(node) for node in walk(keras.Model(inputs, x))] == [0, 0, 0]


def test_printed_and_saved(tmp_path):
    result = tfprune.profile(residual())
    text = str(result)
    assert "Profile of residual" in text
    assert f"{result.macs:,}" in text
    saved = json.loads(result.save(tmp_path / "profile.json").read_text())
    assert saved["macs"] == result.macs
    assert saved["layers"][0]["name"] == result.layers[0].name
    assert np.prod(saved["layers"][0]["output_shape"]) == np.prod(result.layers[0].output_shape)


@pytest.mark.parametrize(("model", "error"), [("m.keras", TypeError), (keras.Sequential([L.Dense(1)]), ValueError)])
def test_what_cannot_be_read_is_refused(model, error):
    with pytest.raises(error, match=r"Keras 3 model|is not built"):
        tfprune.profile(model)


def test_a_quantize_aware_model_costs_what_its_layers_do():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.SeparableConv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="left"),
        ]
    )
    aware = tfprune.quantize_aware(model, exclude=[model.get_layer("left")])
    assert tfprune.profile(aware).macs == tfprune.profile(model).macs > 0
