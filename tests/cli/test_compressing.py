"""`tfprune compress`: what the library is asked for, and one whole pass."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import tfprune
from tfprune.tflite.model import TFLiteModel
from tfprune_cli import compressing
from tfprune_cli.compiling import compile_for, metric_for
from tfprune_cli.errors import InputError

L = keras.layers


def network(units=3, activation=None):
    return keras.Sequential([keras.Input((2,)), L.Dense(4, "relu"), L.Dense(units, activation, name="last")])


class ReachedError(Exception):
    """Stops where the library's work would begin."""


@pytest.fixture
def asked(monkeypatch):
    """What `compress` of the library is called with."""
    call = SimpleNamespace()

    def compress(model, data, **arguments):
        vars(call).update(model=model, data=data, **arguments)
        raise ReachedError

    monkeypatch.setattr(compressing, "compress_model", compress)
    return call


@pytest.fixture
def command(tmp_path):
    """The beginning of a command for a model and data."""
    x, y = np.arange(12, dtype="float32").reshape(6, 2), np.arange(6) % 3
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    network().save(tmp_path / "plain.keras")
    compiled = network()
    compiled.compile(keras.optimizers.SGD(0.25), keras.losses.CategoricalHinge())
    compiled.save(tmp_path / "compiled.keras")

    def command(model, data, *options):
        start = ["compress", tmp_path / model, "--data", tmp_path / data, "--out", tmp_path / "m.tflite"]
        return [*start, "--budget", "macs=0.5,file=3kB", *options]

    return command


def test_all_that_is_asked_for_reaches_the_library(run, asked, command, tmp_path):
    options = ["--preset", "best", "--epochs", "7", "--learning-rate", "0.01", "--seed", "5", "--io", "uint8"]
    code, _, err = run(*command("plain.keras", "xy.npz", *options, "--restart", "--validation", tmp_path / "xy.npz"))
    assert code == 70
    assert "unexpected ReachedError" in err
    assert asked.budget == tfprune.Budget(macs=0.5, file_bytes=3000)
    assert (asked.path, asked.epochs) == (tmp_path / "m.tflite", 7)
    assert asked.options == tfprune.CompressOptions(
        steps=3, learning_rate=0.01, seed=5, io_dtype="uint8", restart=True, metric=None
    )
    for x, y in (asked.data, asked.validation):
        assert x.shape == (6, 2)
        assert y.tolist() == [0, 1, 2, 0, 1, 2]


def test_defaults_are_those_of_the_library(run, asked, command):
    run(*command("compiled.keras", "x.npy"))
    assert asked.options == tfprune.CompressOptions()
    assert (asked.epochs, asked.validation) == (12, None)
    assert asked.data.shape == (6, 2)


def test_loss_and_optimizer_of_the_file_are_kept_and_another_loss_replaces_them(run, asked, command):
    assert "names no loss" not in run(*command("compiled.keras", "x.npy"))[2]
    assert type(asked.model.loss).__name__ == "CategoricalHinge"
    assert float(asked.model.optimizer.learning_rate.numpy()) == 0.25
    loss = "sparse_categorical_crossentropy"
    assert f"Adam and {loss} of logits" in run(*command("compiled.keras", "x.npy", "--loss", loss))[2]
    assert type(asked.model.optimizer).__name__ == "Adam"


def test_loss_whose_code_is_not_in_the_file(run, asked, command, tmp_path):
    def mine(y, prediction):
        return keras.ops.mean(prediction)

    model = network()
    model.compile("sgd", mine)
    model.save(tmp_path / "mine.keras")
    code, _, err = run(*command("mine.keras", "x.npy"))
    assert code == 2
    assert "Pass --loss" in err
    run(*command("mine.keras", "x.npy", "--loss", "categorical_crossentropy"))
    assert asked.model.loss.from_logits


@pytest.mark.parametrize(
    ("units", "activation", "y", "loss", "from_logits"),
    [
        (3, None, np.array([0, 2]), "sparse_categorical_crossentropy", True),
        (3, "softmax", np.array([[0.0], [2.0]]), "sparse_categorical_crossentropy", False),
        (3, "softmax", np.eye(3), "categorical_crossentropy", False),
        (3, None, np.eye(3), "categorical_crossentropy", True),
        (3, "softmax", None, "sparse_categorical_crossentropy", False),
        (1, "sigmoid", None, "binary_crossentropy", False),
        (1, None, np.array([0, 1]), "binary_crossentropy", True),
    ],
)
def test_loss_that_fits_outputs_and_labels(units, activation, y, loss, from_logits, capsys):
    model = network(units, activation)
    compile_for(model, y, None)
    assert (model.loss.name, model.loss.from_logits) == (loss, from_logits)
    assert loss in capsys.readouterr().err
    metric = metric_for(model)
    if units == 1:
        assert metric(np.array([1.0, 1.0]), np.array([0.4, 0.6])) == (1.0 if from_logits else 0.5)
    else:
        assert metric is None


@pytest.mark.parametrize(("units", "y"), [(3, None), (1, None), (3, np.array([0.5, 1])), (1, np.array([0, 2]))])
def test_no_loss_is_guessed(units, y):
    with pytest.raises(InputError, match="nothing tells how it is trained"):
        compile_for(network(units), y, None)


def test_folders_with_other_classes(run, command, tmp_path):
    for path in ("one/a/1.png", "one/b/1.png", "two/a/1.png", "two/c/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        keras.utils.save_img(tmp_path / path, np.zeros((4, 4, 3)), scale=False)
    code, _, err = run(*command("plain.keras", "one", "--validation", tmp_path / "two"))
    assert code == 2
    assert "['a', 'b'] and ['a', 'c']" in err


def test_file_that_another_has_written_is_left_alone(run, command, tmp_path):
    (tmp_path / "m.compress").mkdir()
    (tmp_path / "m.tflite").write_text("mine")
    code, _, err = run(*command("compiled.keras", "x.npy"))
    assert code == 2
    assert "Pass --overwrite" in err
    assert (tmp_path / "m.tflite").read_text() == "mine"


def test_validation_needs_labels(run, asked, command, tmp_path):
    code, _, err = run(*command("compiled.keras", "xy.npz", "--validation", tmp_path / "x.npy"))
    assert code == 2
    assert "has no labels" in err


@pytest.mark.slow
def test_from_a_folder_of_images_to_a_file_that_meets_the_budget(run, tmp_path):
    random = np.random.default_rng(0)
    patterns, y = random.normal(size=(3, 8, 8, 3)), np.arange(120) % 3
    x = np.clip(128 + 40 * patterns[y] + 20 * random.normal(size=(120, 8, 8, 3)), 0, 255).astype("uint8")
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        path = tmp_path / f"photos/{'abc'[label]}/{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, image, scale=False)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Rescaling(1 / 127.5, -1),
            L.Conv2D(12, 3, activation="relu"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=12, verbose=0)
    model.save(tmp_path / "model.keras")
    arguments = ["compress", tmp_path / "model.keras", "--data", tmp_path / "photos", "--out", tmp_path / "m.tflite"]
    arguments += ["--budget", "macs=0.6,file=50kB", "--preset", "fast", "--epochs", "3", "--io", "uint8", "--json"]
    code, out, err = run(*arguments)
    assert code == 0, err
    found = json.loads(out)
    assert [line["met"] for line in found["budget"]] == [True, True]
    assert found["phases"][0]["score"] == 1.0
    assert found["drop"] <= 0.2
    file = TFLiteModel(tmp_path / "m.tflite")
    assert file.inputs[0].dtype == np.uint8
    again = run(*arguments)
    assert again[0] == 0
    assert "done before" in again[2]
    assert json.loads(again[1])["phases"] == found["phases"]
    code, _, err = run(*arguments, "--seed", "1")
    assert code == 2
    assert "seed: 0 then, 1 now" in err
    assert "pass --restart" in err
