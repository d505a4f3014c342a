"""Errors of a quantized file, operator by operator."""

import keras
import numpy as np
import pytest

from tfprune import quantization_errors, quantize_aware
from tfprune.measure import QuantizationErrors, RoundingError

L = keras.layers


@pytest.fixture(scope="module")
def net():
    """A network with a layer that is steep where most of its inputs are."""
    inner = keras.Sequential([keras.Input((10, 10, 4)), L.DepthwiseConv2D(3, name="depthwise")], name="inner")
    inputs = keras.Input((12, 12, 3), name="image")
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(L.Conv2D(4, 3, use_bias=False, name="conv")(inputs)))
    x = L.GlobalAveragePooling2D(name="pool")(inner(x))
    steep = L.Dense(6, activation="tanh", name="steep")
    model = keras.Model(inputs, L.Dense(4, name="classes")(steep(x)), name="net")
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.3)
    steep.kernel.assign(4 * steep.kernel)
    return model


@pytest.fixture(scope="module")
def images():
    x = np.random.default_rng(1).normal(size=(40, 12, 12, 3)).astype("float32")
    x[0] *= 30  # it sets the ranges, so that the others are rounded coarsely
    return x


@pytest.fixture(scope="module")
def found(net, images):
    return quantization_errors(net, images)


def test_every_operator_has_its_layers(found):
    assert [(set(row.layers), row.operator) for row in found.rows] == [
        ({"relu", "norm", "conv"}, "CONV_2D"),
        ({"inner", "depthwise"}, "DEPTHWISE_CONV_2D"),
        ({"pool"}, "MEAN"),
        ({"steep"}, "FULLY_CONNECTED"),
        ({"steep"}, "TANH"),
        ({"classes"}, "FULLY_CONNECTED"),
    ]
    assert found.num_samples == 32


def test_layer_that_hurts_is_named(found):
    second = sorted(row.added for row in found.rows)[-2]
    assert found.worst(second) == ("steep",)
    assert found.worst(10.0) == ()
    assert "Most is added by steep: the first to leave in float." in str(found)
    errors, added = ([getattr(row, name) for row in found.rows] for name in ("error", "added"))
    assert added == pytest.approx([errors[0], *np.diff(errors)])


@pytest.mark.parametrize(("mode", "levels"), [("int8_weights", 127), ("int4_weights", 7)])
def test_errors_of_stored_weights_are_those_computed_by_hand(mode, levels):
    model = keras.Sequential([keras.Input((16,)), L.Dense(16, use_bias=False, name="only")])
    random = np.random.default_rng(0)
    kernel = random.normal(size=(16, 16)).astype("float32")
    model.get_layer("only").kernel.assign(kernel)
    x = random.normal(size=(32, 16)).astype("float32")
    (row,) = quantization_errors(model, x, quantize=mode).rows
    scale = np.abs(kernel).max(axis=0) / levels
    wrong = x @ (np.rint(kernel / scale) * scale - kernel)
    assert row.error == row.added == pytest.approx(np.sqrt(np.mean(wrong**2)) / (x @ kernel).std(), rel=1e-3)


def test_report_is_drawn_and_saved(found, tmp_path):
    pytest.importorskip("matplotlib")
    picture = found.plot(tmp_path / "errors.svg").read_text()
    assert "steep" in picture
    assert "inner, depthwise" in picture
    assert '"operator": "TANH"' in found.save(tmp_path / "errors.json").read_text()


def test_layers_of_several_operators_are_named_once():
    rows = (
        RoundingError(("a",), "CONV_2D", 0.2, 0.2),
        RoundingError(("b", "a"), "ADD", 0.6, 0.4),
        RoundingError((), "PAD", 0.9, 0.3),
    )
    report = QuantizationErrors("net", "int8", 8, rows)
    assert report.worst(0.1) == ("b", "a")
    assert report.worst(0.35) == ("b", "a")
    with pytest.raises(ValueError, match="max_added must be a number of at least 0"):
        report.worst(-1)


def test_bad_input_is_refused(net, images):
    with pytest.raises(ValueError, match=r"quantize must be one of.*'int8'.*Received: None"):
        quantization_errors(net, images, quantize=None)
    with pytest.raises(ValueError, match=r"is quantize-aware.*tfprune\.strip"):
        quantization_errors(quantize_aware(net), images)
    with pytest.raises(ValueError, match="does not fit"):
        quantization_errors(net, images[:, :5])
