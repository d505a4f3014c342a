"""Layers in the form of another operator compute the same, and every runtime has that operator."""

import keras
import numpy as np
import pytest
from keras import ops

import tfprune
from tfprune.graph import walk
from tfprune.quantization.operator_forms import operator_form

L = keras.layers
FORMS = {
    "vector": ((3,), L.RepeatVector(4)),
    "sequence": ((5, 3), L.UpSampling1D(3)),
    "image": ((3, 4, 2), L.UpSampling2D((2, 3))),
}


@pytest.mark.parametrize("name", FORMS)
def test_what_repeats_positions(name):
    shape, layer = FORMS[name]
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    form = operator_form(layer)
    assert form.compute_output_shape(x.shape) == tuple(layer.compute_output_shape(x.shape))
    assert np.array_equal(form(x), layer(x))


@pytest.mark.parametrize("find", [ops.argmax, ops.argmin])
@pytest.mark.parametrize("axis", [None, 1, -1])
@pytest.mark.parametrize("keepdims", [True, False])
def test_where_the_largest_and_smallest_are(find, axis, keepdims):
    inputs = keras.Input((3, 4), batch_size=2)
    (node,) = walk(keras.Model(inputs, find(inputs, axis=axis, keepdims=keepdims)))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    form = operator_form(node.operation)
    assert np.array_equal(form(x), find(x, axis=axis, keepdims=keepdims))
    assert form(inputs).shape == find(inputs, axis=axis, keepdims=keepdims).shape


@pytest.mark.parametrize("layer", [L.UpSampling2D(2, interpolation="bilinear"), L.Dense(3), L.UpSampling3D()])
def test_other_layers_are_left_to_the_converter(layer):
    assert operator_form(layer) is None


def _network():
    inputs = keras.Input((6, 6, 3))
    x = L.UpSampling2D((1, 2))(L.Conv2D(4, 3, activation="relu")(inputs))
    inner = keras.Sequential([keras.Input((32, 4)), L.UpSampling1D(2), L.GlobalMaxPooling1D(), L.RepeatVector(3)])
    return keras.Model(inputs, ops.argmax(L.Dense(5)(inner(L.Reshape((32, 4))(x))), axis=-1))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("aware", [False, True], ids=["calibrated", "aware"])
def test_the_operators_are_in_the_file(aware, tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 6, 6, 3)).astype("float32")
    model = tfprune.quantize_aware(_network()) if aware else _network()
    model(x, training=True)
    options = tfprune.ExportOptions(tolerance=2.0)  # positions: the next best is as far away as any
    report = tfprune.export(model, tmp_path / "m.tflite", quantize="int8", calibration=x, options=options)
    names = {operator.name for operator in report.operators}
    assert names == {"CONV_2D", "RESIZE_NEAREST_NEIGHBOR", "RESHAPE", "REDUCE_MAX", "FULLY_CONNECTED", "ARG_MAX"}
    assert report.float_operators == ()


def _exponential(name):
    """Numbers up to 200, of which float32 holds no exponential, behind a kernel and in an operation."""
    inputs = keras.Input((3,))
    x = L.Dense(3, activation=name, kernel_initializer="identity", use_bias=False)(inputs)
    functions = {"softplus": ops.softplus, "log_sigmoid": ops.log_sigmoid}
    y = functions[name](inputs) if name in functions else L.Activation(name)(inputs)
    return keras.Model(inputs, [x, y, L.Activation(name)(inputs)])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["softplus", "log_sigmoid", "mish"])
@pytest.mark.parametrize("quantize", [None, "int8", "aware"])
def test_activations_with_an_exponential_neither_overflow_nor_lose_their_digits(name, quantize, tmp_path):
    x = np.random.default_rng(0).uniform(-200, 200, (64, 3)).astype("float32")
    model = tfprune.quantize_aware(_exponential(name)) if quantize == "aware" else _exponential(name)
    model(x, training=True)
    mode = "int8" if quantize else None
    report = tfprune.export(model, tmp_path / "m.tflite", quantize=mode, calibration=x, io_dtype="float32")
    for output in report.outputs:
        assert output.max_abs_error <= (2 * 400 / 255 if quantize else 1e-4), output
