"""A folder with what the command line takes, and what it must refuse."""

import shutil
import zipfile

import keras
import numpy as np
import pytest
from networks import chain, images, randomize

import tfprune
from tfprune_cli import main


class Custom(keras.layers.Layer):
    """A layer that no other process knows."""

    def call(self, x):
        return x * 2


def _ends_in(layer):
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))


def _good(folder):
    model = randomize(chain())
    model.save(folder / "model.keras")
    tfprune.export(model, folder / "model.tflite")
    x, y = images()
    np.savez(folder / "data.npz", x=x, y=y)
    np.save(folder / "x.npy", x)


def _bad_models(folder):
    whole = (folder / "model.keras").read_bytes()
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    for name, content in {
        "empty": b"",
        "png": png,
        "text": b"layers: 3\n",
        "truncated": whole[: len(whole) // 2],
    }.items():
        (folder / f"{name}.keras").write_bytes(content)
        (folder / f"{name}.h5").write_bytes(content)
    (folder / "folder.keras").mkdir()
    with zipfile.ZipFile(folder / "other_zip.keras", "w") as archive:
        archive.writestr("readme.txt", "nothing of Keras")
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 0xFF
    (folder / "damaged.keras").write_bytes(damaged)
    shutil.copy(folder / "model.keras", folder / "model.zip")
    lambdas, custom = _ends_in(keras.layers.Lambda(lambda t: t * 2)), _ends_in(Custom())
    randomize(chain()).save_weights(folder / "only.weights.h5")
    lambdas.save(folder / "lambda.keras")
    custom.save(folder / "custom.keras")
    tflite = (folder / "model.tflite").read_bytes()
    for name, content in {"empty": b"", "png": png, "truncated": tflite[: len(tflite) // 2]}.items():
        (folder / f"{name}.tflite").write_bytes(content)
    (folder / "folder.tflite").mkdir()


def _bad_data(folder):
    x, y = images()
    np.savez(folder / "without_x.npz", pictures=x, y=y)
    np.savez(folder / "without_y.npz", x=x)
    np.savez(folder / "pickled.npz", x=np.array([{"a": 1}, None], dtype=object), y=y)
    np.savez(folder / "text.npz", x=np.array(["a", "b"]), y=y)
    np.savez(folder / "shape.npz", x=x[:, :5], y=y)
    np.savez(folder / "no_samples.npz", x=x[:0], y=y[:0])
    whole = (folder / "data.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(whole[:500])
    (folder / "damaged.npz").write_bytes(whole[:200] + bytes(300) + whole[500:])
    (folder / "empty.npz").write_bytes(b"")
    (folder / "short.npy").write_bytes((folder / "x.npy").read_bytes()[:300])
    (folder / "list.npy").write_bytes(b"[1, 2, 3]")


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The folder; tests must not write to it."""
    folder = tmp_path_factory.mktemp("files")
    _good(folder)
    _bad_models(folder)
    _bad_data(folder)
    return folder


@pytest.fixture
def run(capsys):
    """A function that runs the command line, and returns the exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
