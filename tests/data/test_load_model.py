"""Keras models from files: what loads, and what is said of a file that does not."""

import shutil
import zipfile

import keras
import numpy as np
import pytest
from networks import chain, outputs, randomize, same

import tfprune
from tfprune.data import load_model


class Unknown(keras.layers.Layer):
    """A layer that is not registered."""

    def call(self, x):
        return x * 2


def ending_in(layer):
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model = randomize(chain())
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "only.weights.h5")
    whole = (folder / "model.keras").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 0xFF
    for name, content in {"empty": b"", "cut": whole[: len(whole) // 2], "damaged": bytes(damaged)}.items():
        (folder / f"{name}.keras").write_bytes(content)
    (folder / "text.h5").write_text("layers: 3")
    with zipfile.ZipFile(folder / "zip.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing of Keras")
    ending_in(keras.layers.Lambda(lambda t: t * 2)).save(folder / "lambda.keras")
    ending_in(Unknown()).save(folder / "unknown.keras")
    (folder / "folder.keras").mkdir()
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"")
    (folder / "m.tflite").write_bytes(b"")
    shutil.copy(folder / "model.keras", folder / "model.zip")
    return folder


REFUSED = {
    "missing.keras": (FileNotFoundError, "There is no file"),
    "folder.keras": (IsADirectoryError, "is a folder"),
    "saved": (IsADirectoryError, r"is a SavedModel.*model\.save\('model\.keras'\)"),
    "m.tflite": (ValueError, "is an exported file, and a Keras model is needed"),
    "model.zip": (ValueError, r"Expected a path that ends in \.keras or \.h5"),
    "empty.keras": (ValueError, "is empty"),
    "cut.keras": (ValueError, "is cut short"),
    "text.h5": (ValueError, r"is no \.h5 file"),
    "damaged.keras": (ValueError, r"Keras [\d.]+ cannot load '.*damaged\.keras': .*Save or copy it again"),
    "zip.keras": (ValueError, "cannot load"),
    "only.weights.h5": (ValueError, "holds weights without the model"),
    "lambda.keras": (ValueError, r"holds Python code.*it is unsafe.*safe_mode=False"),
    "unknown.keras": (ValueError, "class of its own, 'Unknown', whose code is not in the file"),
}


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_what_was_saved_comes_back(name, kind, files):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    model = load_model(kind(files / name))
    assert not model.compiled
    assert same(outputs(model, x), outputs(keras.saving.load_model(files / "model.keras"), x))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_told_in_one_line(name, files):
    error, message = REFUSED[name]
    with pytest.raises(error, match=message) as raised:
        load_model(files / name)
    assert "\n" not in str(raised.value)
    assert str(files / name) in str(raised.value)


@pytest.mark.parametrize("name", sorted({*REFUSED} - {"m.tflite", "model.zip"}))
def test_compare_says_the_same(name, files):
    error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        tfprune.compare([files / name], (np.zeros((1, 2)), np.zeros(1)))


def test_code_runs_where_it_is_wanted(files):
    assert load_model(files / "lambda.keras", unsafe=True).layers[1].name.startswith("lambda")


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (tfprune.profile, TypeError, r"Received the path 'm\.keras'\. Load it first"),
        (lambda path: tfprune.recalibrate(path, np.zeros(1)), TypeError, "Load it first"),
        (lambda path: tfprune.prune_channels(path, 0.5), TypeError, "Load it first"),
        (lambda path: tfprune.export(path, "m.tflite"), TypeError, "Load it first"),
    ],
)
def test_a_path_where_a_model_is_needed(use, error, message):
    with pytest.raises(error, match=message):
        use("m.keras")


def test_a_keras_file_where_a_tflite_file_is_needed(files):
    with pytest.raises(ValueError, match=r"is a Keras model.*tfprune\.export\(model, 'model\.tflite'\)"):
        tfprune.benchmark(files / "model.keras")
