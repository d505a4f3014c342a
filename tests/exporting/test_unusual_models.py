"""Models and data that a file cannot hold as they are work, or are refused with what to change."""

import keras
import numpy as np
import pytest

import tfprune

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")


def network(**options):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,)), L.Dense(4, "relu", **options), L.Dense(3)])


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("quantize", ["int8", "dynamic", "aware"])
def test_weights_that_are_not_finite_are_refused(value, quantize, tmp_path):
    model = network()
    model.layers[1].bias.assign([value, 0, 0])
    prepare = {
        "aware": tfprune.quantize_aware,
        **{
            mode: lambda model, mode=mode: tfprune.export(model, tmp_path / "m.tflite", quantize=mode, calibration=X)
            for mode in ("int8", "dynamic")
        },
    }[quantize]
    with pytest.raises(ValueError, match=r"dense.*/bias' of model 'sequential.*' has NaN or infinite numbers.*Train"):
        prepare(model)


@pytest.mark.parametrize("nested", [False, True])
def test_stateful_layers_are_refused(nested, tmp_path):
    layer = L.LSTM(4, stateful=True, name="memory")
    inputs = keras.Input((5, 3), batch_size=1)
    model = keras.Model(inputs, keras.Sequential([layer])(inputs) if nested else layer(inputs))
    with pytest.raises(ValueError, match=r"'memory' is stateful.*stateful=False"):
        tfprune.export(model, tmp_path / "m.tflite")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "mixed_float16"])
def test_other_precisions_become_float32(dtype, aware, tmp_path):
    model = network(dtype=dtype)
    if aware:
        model = tfprune.quantize_aware(model)
        model(X, training=True)
    report = tfprune.export(model, tmp_path / "m.tflite", quantize="int8", calibration=X)
    assert (report.io_dtype, report.float_operators) == ("int8", ())
    assert report.outputs[0].relative_rms_error < 0.05


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["generator of lists", "function", "function of dicts"])
def test_calibration_as_the_converter_takes_it(form, tmp_path):
    model = network()
    forms = {
        "generator of lists": ([row[None]] for row in X),
        "function": lambda: ([row[None]] for row in X),
        "function of dicts": lambda: ({model.inputs[0].name: row[None]} for row in X),
    }
    report = tfprune.export(model, tmp_path / "m.tflite", quantize="int8", calibration=forms[form])
    expected = tfprune.export(model, tmp_path / "n.tflite", quantize="int8", calibration=X)
    assert (tmp_path / "m.tflite").read_bytes() == (tmp_path / "n.tflite").read_bytes()
    assert report.verified_on == expected.verified_on


@pytest.mark.sampled(1)
@pytest.mark.parametrize("aware", [False, True])
def test_an_output_that_is_exactly_zero(aware, tmp_path):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, L.Dense(3, kernel_initializer="zeros")(L.Dense(4)(inputs)))
    if aware:
        model = tfprune.quantize_aware(model)
        model(X, training=True)
    report = tfprune.export(model, tmp_path / "m.tflite", quantize="int8", calibration=X)
    assert report.outputs[0].max_abs_error == 0
