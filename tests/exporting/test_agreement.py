"""A file of a quantize-aware model gives its numbers, and `export` notices where a file does not."""

import keras
import numpy as np
import pytest
from networks import of_images

import tfprune
from tfprune.exporting import exporter
from tfprune.exporting.channels import mostly_equal
from tfprune.exporting.convert import to_tflite
from tfprune.exporting.inputs import keras_outputs
from tfprune.exporting.nudging import nudged_outputs
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, operator_name, pack

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")


def trunk(x):
    return L.ReLU()(L.Conv2D(6, 3, padding="same", bias_initializer="normal")(x))


def dense(x):
    return L.Dense(3)(L.Flatten()(x))


def slice_beside_sigmoid(x):
    x = trunk(x)
    return dense(L.Concatenate()([x[..., :5], L.Activation("sigmoid")(x[..., 5:])]))


def tanh_beside_sigmoid(x):
    x = trunk(x)
    return dense(L.Concatenate()([L.Activation("tanh")(x), L.Activation("sigmoid")(x), x]))


def read_twice(x):
    """The sigmoid is multiplied by, with its own steps, and concatenated with others."""
    x = trunk(x)
    gate = L.Activation("sigmoid")(x)
    return dense(L.Concatenate()([L.Multiply()([x, gate]), gate]))


def sliced_reshaped_and_joined(x):
    x = trunk(x)
    flat = L.Reshape((64, 1, 6))(L.Softmax()(x))
    return dense(L.Concatenate(1)([flat, L.Reshape((64, 1, 6))(x)[:, 8:24]]))


def pooled_and_joined(x):
    x = trunk(x)
    gate = L.AveragePooling2D(2)(L.Activation("sigmoid")(x))
    return dense(L.Concatenate()([L.MaxPooling2D(2)(x), gate]))


def largest_of_both(x):
    x = trunk(x)
    return dense(L.Maximum()([L.Activation("tanh")(x), x]))


def float_island(x):
    x = trunk(x)
    return dense(L.Concatenate()([L.Activation("softplus")(x), L.Activation("sigmoid")(x), x[..., :2]]))


DEFAULT = (slice_beside_sigmoid, read_twice)
NETWORKS = (
    *(slice_beside_sigmoid, tanh_beside_sigmoid, read_twice, sliced_reshaped_and_joined, pooled_and_joined),
    *(largest_of_both, float_island),
)


def aware_of(model, x=IMAGES):
    aware = tfprune.quantize_aware(model)
    for _ in range(2):
        aware(x, training=True)
    return aware


@pytest.mark.sampled(1)
@pytest.mark.parametrize("network", [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in NETWORKS])
def test_what_is_concatenated_with_fixed_ranges_is_the_same_in_the_file(network, tmp_path):
    model = of_images(network)
    aware = aware_of(model)
    report = tfprune.export(aware, tmp_path / "model.tflite", quantize="int8", io_dtype="float32")
    assert report.outputs[0].within_two_steps >= 0.999
    expected, found = np.asarray(aware(IMAGES)), TFLiteModel(tmp_path / "model.tflite").predict(IMAGES)
    step = report.outputs[0].max_abs_error / (report.outputs[0].max_error_lsb or 1.0)
    assert np.mean(np.abs(expected - found) <= 2.01 * (step or 0.02)) > 0.99
    plain = np.asarray(tfprune.strip(aware)(IMAGES))
    np.testing.assert_allclose(plain, np.asarray(model(IMAGES)), atol=1e-5)


def scaled(file):
    """The file with a last kernel that is a tenth too large, which a relative RMS error of 0.25 would let pass."""
    changed = file.editable()
    (graph,) = changed.subgraphs
    (last,) = [each for each in graph.operators if operator_name(changed, each) == "FULLY_CONNECTED"]
    graph.tensors[last.inputs[1]].quantization.scale *= np.float32(1.1)
    return TFLiteFile(pack(changed))


def test_a_file_whose_numbers_are_a_tenth_off_is_refused(tmp_path, monkeypatch):
    aware = aware_of(of_images(slice_beside_sigmoid))
    monkeypatch.setattr(exporter, "to_tflite", lambda *arguments: scaled(to_tflite(*arguments)))
    with pytest.raises(
        tfprune.ExportMismatchError, match=r"quantize-aware model.*\d% of channel \d are more than two st"
    ):
        tfprune.export(aware, tmp_path / "model.tflite", quantize="int8")
    assert not list(tmp_path.iterdir())
    options = tfprune.ExportOptions(tolerance=0.25)  # the accuracy is measured elsewhere
    tfprune.export(aware, tmp_path / "model.tflite", quantize="int8", options=options)


def test_a_calibrated_file_that_is_wrong_names_the_layer(tmp_path, monkeypatch):
    layers = [L.Conv2D(4, 3, activation="relu", name="first"), L.Conv2D(4, 3, activation="relu", name="second")]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3), name="image"), *layers, L.Flatten(), L.Dense(3)])
    other = keras.models.clone_model(model)
    kernel, bias = model.layers[1].get_weights()
    other.set_weights(model.get_weights())
    other.layers[1].set_weights([-kernel, bias])

    def convert_other(source, quantize, *arguments):
        return to_tflite(model if quantize is None else other, quantize, *arguments)

    monkeypatch.setattr(exporter, "to_tflite", convert_other)
    with pytest.raises(
        tfprune.ExportMismatchError, match=r"The relative error grows most in '\w*second\w*/Relu': from 0\.0"
    ):
        tfprune.export(model, tmp_path / "model.tflite", quantize="int8", calibration=IMAGES)


def boxes_and_scores():
    inputs = keras.Input((8, 8, 3), name="image")
    hidden = L.Flatten()(L.Conv2D(8, 3, activation="relu")(inputs))
    boxes = L.Rescaling(640.0)(L.Dense(4, "sigmoid")(hidden))
    scores = L.Dense(3, "sigmoid", name="scores", bias_initializer=keras.initializers.Constant(-3.0))(hidden)
    return keras.Model(inputs, L.Concatenate()([boxes, scores]))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("path", ["calibrated", "aware"])
def test_scores_beside_boxes_in_pixels_are_told_of(path, tmp_path):
    keras.utils.set_random_seed(0)
    model = boxes_and_scores()
    model = aware_of(model) if path == "aware" else model
    with pytest.warns(UserWarning, match=r"3 of them \(4, 5, 6; made by the layer 'scores\w*'\) lie within two steps"):
        report = tfprune.export(model, tmp_path / "model.tflite", quantize="int8", calibration=IMAGES)
    assert report.outputs[0].lost_channels == (4, 5, 6)


def test_a_nudge_moves_one_number_in_a_hundred_by_a_step_wherever_the_model_rounds():
    inputs = keras.Input((100,), name="x")
    x = L.Rescaling(1.0, 10.0)(inputs)  # rounded where it is made, and so is the input
    aware = tfprune.quantize_aware(keras.Model(inputs, L.Concatenate()([x[:, :50], L.Activation("sigmoid")(x)])))
    samples = np.random.default_rng(0).uniform(-10, 10, (400, 100)).astype("float32")
    aware(samples, training=True)
    (expected,), (found,) = keras_outputs(aware, {"x": samples}), nudged_outputs(aware, {"x": samples})
    step = 20 / 255
    moved = np.abs(found - expected)[:, :50] / step
    assert np.isin(moved.round(1), [0, 1, 2]).all()
    assert np.mean(moved > 0.5) == pytest.approx(0.02, rel=0.1)  # by the input, or where it is made
    assert np.array_equal(keras_outputs(aware, {"x": samples})[0], expected)  # nothing of it stays


def test_as_many_may_be_far_apart_as_twice_those_that_a_nudge_moves_as_far_and_chance():
    far, explained = np.zeros((1000, 2), bool), np.zeros((1000, 2), bool)
    far[:250, 1] = True
    explained[:100, 1] = True  # 200 + 3 sqrt(200) = 242.4 of 1000
    assert mostly_equal(far, 1e-3, explained) == "25% of channel 1 are more than two steps apart, and 24.3% may be"
    explained[100:104, 1] = True  # 208 + 3 sqrt(208) = 251.3
    assert mostly_equal(far, 1e-3, explained) == ""
    explained = explained[:, ::-1]  # the nudge moves the other channel: 104 + 3 sqrt(104) = 134.6 in this one
    assert mostly_equal(far, 1e-3, explained) == "25% of channel 1 are more than two steps apart, and 13.5% may be"
    assert mostly_equal(far, 0.3) == ""
    assert (
        mostly_equal(np.ones((1, 3), bool), 1e-3)
        == "100% of the numbers are more than two steps apart, and 33.3% may be"
    )
