"""`io_dtype` is what the file has, or is refused; the report states what the file has."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.tflite.model import TFLiteModel

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def aware_without(*names):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = L.Dense(6, "relu", name="middle")(L.Dense(8, name="first")(inputs))
    model = keras.Model(inputs, L.Softmax(name="softmax")(L.Dense(3, name="last")(hidden)))
    aware = tfprune.quantize_aware(model, exclude=[model.get_layer(name) for name in names])
    aware(X, training=True)
    return aware


@pytest.mark.sampled(1)
@pytest.mark.parametrize("excluded", [("first",), ("softmax",), ("first", "softmax")])
@pytest.mark.parametrize("io_dtype", ["uint8", "float32", None])
def test_the_file_has_the_dtypes_that_were_asked_for(excluded, io_dtype, tmp_path):
    path = tmp_path / "model.tflite"
    report = tfprune.export(aware_without(*excluded), path, quantize="int8", io_dtype=io_dtype, calibration=X)
    loaded = TFLiteModel(path)
    found = loaded.inputs[0].dtype.name, loaded.outputs[0].dtype.name
    default = "float32" if "first" in excluded else "int8", "float32" if "softmax" in excluded else "int8"
    assert found == (default if io_dtype is None else (io_dtype, io_dtype))
    assert report.io_dtype == (found[0] if found[0] == found[1] else f"{found[0]} in, {found[1]} out")
    assert report.outputs[0].max_abs_error < 0.02


def test_what_the_converter_leaves_in_float_is_refused(tmp_path):
    inputs = keras.Input((8,), dtype="float64")
    model = keras.Model(inputs, L.Dense(3, dtype="float64")(inputs))
    with pytest.raises(ValueError, match=r"io_dtype='uint8' was asked for, and in the file '.*' is float64"):
        tfprune.export(model, tmp_path / "m.tflite", quantize="int8", calibration=X, io_dtype="uint8")
    assert not (tmp_path / "m.tflite").exists()


def test_a_layer_in_float_reads_and_makes_unrounded_numbers_in_the_model():
    model = aware_without("first")
    twin = tfprune.strip(model)
    expected = X @ twin.get_layer("first").kernel.numpy() + twin.get_layer("first").bias.numpy()
    found = keras.Model(model.input, model.get_layer("float_first").output).predict(X, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
