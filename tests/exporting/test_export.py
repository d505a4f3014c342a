import json
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tfprune.exporting import ExportMismatchError, ExportOptions, export, exporter
from tfprune.exporting import export_options as options_module
from tfprune.exporting.convert import to_tflite
from tfprune.tflite.model import TFLiteModel

IMAGES = np.random.default_rng(1).random((20, 8, 8, 1)).astype(np.float32)
SPARSE = ExportOptions(sparse=True)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("quantize", "io_dtype", "bound"),
    [
        (None, None, 1e-5),
        ("float16", None, 5e-3),
        ("dynamic", "float32", 0.05),
        ("int16x8", None, 0.05),
        ("int16x8", "int16", 0.05),
        ("int8_weights", None, 0.05),
        ("int4_weights", None, 0.5),
        ("int8", None, 0.15),
        ("int8", "uint8", 0.15),
        ("int8", "float32", 0.15),
    ],
)
def test_every_mode_writes_a_file_that_agrees(net, images, tmp_path, quantize, io_dtype, bound):
    path = tmp_path / "new" / "model.tflite"
    report = export(net, path, quantize=quantize, calibration=images, io_dtype=io_dtype)
    loaded = TFLiteModel(path)
    expected_dtype = io_dtype or ("int8" if quantize == "int8" else "float32")
    assert report.io_dtype == loaded.inputs[0].dtype.name == loaded.outputs[0].dtype.name == expected_dtype
    assert loaded.inputs[0].shape == (1, 8, 8, 1)
    assert report.file_bytes == path.stat().st_size > report.gzip_bytes
    assert report.verified_on == "60 calibration samples"
    assert report.outputs[0].relative_rms_error < bound
    difference = np.abs(loaded.predict(images) - np.asarray(net(images))).max()
    assert report.outputs[0].max_abs_error == pytest.approx(difference, rel=1e-3)
    if quantize == "int8":
        assert report.float_operators == ()
        assert report.outputs[0].max_error_lsb == pytest.approx(difference * 256, rel=1e-3)
    assert list(path.parent.iterdir()) == [path]


def test_report_is_a_table_and_json(two_inputs, tmp_path):
    report = export(two_inputs, tmp_path / "model.tflite")
    saved = json.loads(report.save(tmp_path / "report.json").read_text())
    assert saved == json.loads(json.dumps(report.to_dict()))
    assert [output["name"] for output in saved["outputs"]] == ["narrow", "wide"]
    assert saved["verified_on"] == "32 random inputs"
    assert "32 random inputs" in str(report)
    assert "narrow: top-1 agreement" in str(report)


def test_several_inputs_and_outputs_in_int8(two_inputs, tmp_path):
    rng = np.random.default_rng(0)
    data = {"z_image": rng.random((40, 4, 4, 1)), "extra": rng.normal(size=(40, 3))}
    report = export(two_inputs, tmp_path / "model.tflite", quantize="int8", calibration=data)
    narrow, wide = TFLiteModel(tmp_path / "model.tflite").predict({k: v.astype("float32") for k, v in data.items()})
    expected = two_inputs({name: array.astype("float32") for name, array in data.items()})
    assert np.abs(narrow - np.asarray(expected["narrow"])).max() < 0.1
    assert np.abs(wide - np.asarray(expected["wide"])).max() < 0.1
    assert len(report.outputs) == 2


@pytest.mark.sampled(1)
@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8"])
def test_a_wrong_file_is_refused_and_the_older_one_stays(net, other_net, images, tmp_path, monkeypatch, quantize):
    def convert_other(model, *arguments):
        return to_tflite(other_net, *arguments)

    path = tmp_path / "model.tflite"
    path.write_bytes(b"older")
    monkeypatch.setattr(exporter, "to_tflite", convert_other)
    with pytest.raises(ExportMismatchError, match="was not written"):
        export(net, path, quantize=quantize, calibration=images, overwrite=True)
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_badly_scaled_calibration_is_refused(net, images, tmp_path, monkeypatch):
    def convert_with_bytes(model, quantize, samples, *arguments):
        return to_tflite(model, quantize, {"image": samples["image"] * 255}, *arguments)

    monkeypatch.setattr(exporter, "to_tflite", convert_with_bytes)
    with pytest.raises(ExportMismatchError, match="scaled the same way"):
        export(net, tmp_path / "model.tflite", quantize="int8", calibration=images)
    assert not list(tmp_path.iterdir())


def test_tolerance_decides(net, images, tmp_path):
    options = ExportOptions(tolerance=1e-12)
    with pytest.raises(ExportMismatchError, match="tolerance 1e-12"):
        export(net, tmp_path / "model.tflite", quantize="dynamic", calibration=images, options=options)
    assert export(net, tmp_path / "model.tflite", options=ExportOptions(tolerance=0.5)).tolerance == 0.5


def test_the_model_and_the_temporary_folder_stay_as_they_were(images, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.tempdir).mkdir()
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(images, np.zeros((60, 3)), verbose=0)
    weights, optimizer, config = model.get_weights(), model.optimizer, model.get_config()
    export(model, tmp_path / "model.tflite", quantize="int8", calibration=images)
    assert model.optimizer is optimizer
    assert model.get_config() == config
    assert all(np.array_equal(old, new) for old, new in zip(weights, model.get_weights(), strict=True))
    assert model.predict_function is None
    assert list(Path(tempfile.tempdir).iterdir()) == []


def test_mixed_precision_models_are_exported(images, tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, dtype="mixed_float16"), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    report = export(model, tmp_path / "model.tflite", calibration=images)
    assert report.tolerance == 0.05
    assert report.outputs[0].relative_rms_error < 0.01
    assert model.layers[0].compute_dtype == "float16"


def test_at_most_max_samples_are_used(net, images, tmp_path):
    options = ExportOptions(max_samples=7)
    report = export(net, tmp_path / "model.tflite", quantize="int8", calibration=images, options=options)
    assert report.verified_on == "7 calibration samples"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int4"}, r"must be one of \[None, 'float16', 'dynamic', 'int8', .*\]. Received: 'int4'"),
        ({"quantize": "int8"}, r"Pass some hundred training samples: calibration=x_train\[:500\]"),
        ({"quantize": "dynamic", "io_dtype": "int8"}, "float32 inputs and outputs. Received: io_dtype='int8'"),
        ({"io_dtype": "int32"}, r"io_dtype must be one of \['float32', 'int8', 'uint8', 'int16'\]"),
        ({"quantize": "int8", "calibration": IMAGES, "io_dtype": "int16"}, "int8 or uint8 or float32 inputs"),
        ({"quantize": "int16x8", "calibration": IMAGES, "io_dtype": "int8"}, "float32 or int16 inputs"),
        ({"quantize": "int16x8"}, r'quantize="int16x8" measures the range of every tensor'),
        ({"calibration": np.full((5, 8, 8, 1), np.nan)}, "NaN or infinite"),
        ({"calibration": IMAGES.astype(str)}, "is float32. Received: <U"),
        ({"quantize": "int8", "calibration": IMAGES[:1]}, r"one calibration sample\. Give some hundred"),
        ({"quantize": "int16x8", "calibration": IMAGES[:1]}, "one calibration sample"),
        ({"quantize": "int8", "calibration": np.full((5, 8, 8, 1), 0.5)}, "is 0.5 everywhere"),
        ({"quantize": "int8", "calibration": np.where(IMAGES > 0.999, 1e4, IMAGES)}, "outliers up to 1e"),
        ({"quantize": "dynamic", "options": SPARSE}, "cannot be used with quantize='dynamic': LiteRT 2.3 does not run"),
        ({"quantize": "int16x8", "calibration": IMAGES, "options": SPARSE}, "biases that no runtime reads"),
        ({"quantize": "int8_weights", "options": SPARSE}, "cannot read sparse ones"),
        ({"options": SPARSE}, r"sparse=True cannot help: at most 0% of the weights of a kernel are zero"),
    ],
)
def test_bad_arguments_are_refused_before_conversion(net, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(exporter, "to_tflite", lambda *_: pytest.fail("converted something"))
    with pytest.raises(ValueError, match=message):
        export(net, tmp_path / "model.tflite", **arguments)


def test_bad_paths_are_refused_before_conversion(net, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "to_tflite", lambda *_: pytest.fail("converted something"))
    with pytest.raises(ValueError, match=r"must end in '\.tflite'"):
        export(net, tmp_path / "model.keras")
    (tmp_path / "model.tflite").write_bytes(b"older")
    with pytest.raises(FileExistsError, match=r"model\.tflite' already\. Pass overwrite=True"):
        export(net, tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").read_bytes() == b"older"


@pytest.mark.parametrize(("quantize", "num_bytes"), [(None, 4), ("float16", 2), ("dynamic", 1), ("int4_weights", 4)])
def test_models_too_large_for_a_file_are_refused_before_conversion(net, tmp_path, monkeypatch, quantize, num_bytes):
    monkeypatch.setattr(exporter, "to_tflite", lambda *_: pytest.fail("converted something"))
    monkeypatch.setattr(options_module, "_MAX_FILE_BYTES", num_bytes * net.count_params() - 1)
    with pytest.raises(ValueError, match=rf"{net.count_params():,} weights.*file can hold 2\.1 GB\. Shrink"):
        export(net, tmp_path / "model.tflite", quantize=quantize)


def test_a_missing_package_is_said_before_anything_is_read(net, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'ai-edge-quantizer.*pip install "tfprune\[weight-only\]"'):
        export("not even a model", tmp_path / "model.tflite", quantize="int4_weights")


def test_an_existing_file_is_replaced_when_told(net, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"older")
    export(net, tmp_path / "model.tflite", overwrite=True)
    assert TFLiteModel(tmp_path / "model.tflite").outputs[0].shape == (1, 3)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_models_that_cannot_be_exported_say_why(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(TypeError, match=r"Expected a Keras 3 model .*Received the path 'model.keras'"):
        export("model.keras", path)
    with pytest.raises(ValueError, match="is not built"):
        export(keras.Sequential([keras.layers.Dense(2)]), path)
    subclassed = Subclassed()
    subclassed(np.zeros((1, 3), np.float32))
    assert export(subclassed, path).file_bytes
    inputs = keras.Input((3,))
    assert export(keras.Model(inputs, subclassed(inputs)), path, overwrite=True).file_bytes
    with pytest.raises(ValueError, match="every size but the batch"):
        export(keras.Sequential([keras.Input((None, 3)), keras.layers.GlobalAveragePooling1D()]), path, overwrite=True)


def test_tf_keras_models_are_refused(tmp_path):
    legacy = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})()
    with pytest.raises(TypeError, match="comes from tf_keras"):
        export(legacy, tmp_path / "model.tflite")


def test_a_trained_classifier_keeps_its_answers_in_int8(tmp_path):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Softmax()])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:1400], y[:1400], epochs=10, batch_size=64, verbose=0)
    assert model.evaluate(x[1400:], y[1400:], verbose=0)[1] > 0.85
    report = export(model, tmp_path / "model.tflite", quantize="int8", calibration=(x[:1400], y[:1400]))
    assert report.verified_on == "100 calibration samples"
    assert report.outputs[0].relative_rms_error < 0.05
    assert report.outputs[0].top1_agreement >= 0.97
    answers = TFLiteModel(tmp_path / "model.tflite").predict(x[1400:]).argmax(1)
    agreement = (answers == np.asarray(model(x[1400:])).argmax(1)).mean()
    assert agreement >= 0.97


def test_a_schedule_set_after_compile_does_not_matter(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", "mse", run_eagerly=True)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model.fit(x, x[:, :3], verbose=0)
    report = export(model, tmp_path / "model.tflite", calibration=x)
    assert report.outputs[0].relative_rms_error < 1e-5
