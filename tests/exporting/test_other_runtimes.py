"""Exported files in the runtimes that devices and phones have, each in an environment of its own."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import runtimes

import tfprune
from tfprune.tflite.model import TFLiteModel

pytestmark = pytest.mark.peers

FILES = {
    "float": ({}, {}),
    "float sparse": ({}, {"sparse": True}),
    "dynamic": ({"quantize": "dynamic"}, {}),
    "int8": ({"quantize": "int8"}, {}),
    "int8 sparse": ({"quantize": "int8"}, {"sparse": True}),
    "uint8": ({"quantize": "int8", "io_dtype": "uint8"}, {}),
}


@pytest.fixture(scope="module")
def old_python(tmp_path_factory):
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has no wheel for this Python")
    folder = tmp_path_factory.mktemp("old") / "environment"
    return runtimes.environment(folder, "tflite-runtime==2.14.0", "numpy<2")


@pytest.fixture(scope="module", params=[runtimes.plain_net, runtimes.residual_net])
def model_and_images(request):
    keras.utils.set_random_seed(0)
    model = request.param()
    kernel = max((weight for weight in model.weights if len(weight.shape) == 4), key=lambda each: each.shape[-1])
    kernel.assign(np.where(np.random.default_rng(1).random(kernel.shape) < 0.9, 0, kernel))
    rng = np.random.default_rng(0)
    images = (rng.random((60, 1, 1, 3)) * rng.random((60, 12, 12, 3))).astype(np.float32)
    outputs = np.asarray(model(images))
    logits = outputs if request.param is runtimes.plain_net else np.log(outputs)
    model.layers[-1].bias.assign(-logits.mean(0))  # so that every class occurs
    return model, images


@pytest.mark.parametrize("name", FILES)
def test_tflite_runtime_2_14_gives_the_same_outputs(old_python, model_and_images, tmp_path, name):
    model, images = model_and_images
    arguments, options = FILES[name]
    path = tmp_path / "model.tflite"
    tfprune.export(model, path, calibration=images, options=tfprune.ExportOptions(**options), **arguments)
    hard = runtimes.near_boundaries(model, images)
    assert len(hard) >= 5
    loaded = TFLiteModel(path)
    stored = loaded.inputs[0].quantize(np.concatenate([images[:20], hard]))
    ours, theirs = runtimes.by_reference(path, stored)[0], run_there(old_python, path, stored, tmp_path)
    assert ours.dtype == theirs.dtype == loaded.outputs[0].dtype
    difference = np.abs(ours.astype(np.float64) - theirs)
    if ours.dtype != np.float32:
        assert difference.max() <= 1
    else:
        assert difference.max() <= (0.02 if name == "dynamic" else 1e-5) * np.ptp(ours)


def run_there(python, path, stored, folder):
    np.save(folder / "inputs.npy", stored)
    command = [str(python), "-c", runtimes.RUN, str(path), str(folder / "inputs.npy"), str(folder / "outputs.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "outputs.npy")


CLASSIFY = """
import json, sys
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
classifier = vision.ImageClassifier.create_from_options(options)
rows = []
for pixels in np.load(sys.argv[2]):
    image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
    (found,) = classifier.classify(image).classifications
    rows.append({category.category_name: category.score for category in found.categories})
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def mediapipe_python(tmp_path_factory):
    return runtimes.environment(tmp_path_factory.mktemp("phone") / "environment", "mediapipe")


@pytest.mark.parametrize(("quantize", "io_dtype"), [(None, None), ("int8", "uint8"), ("int8", "float32")])
def test_mediapipe_reads_labels_and_normalization(mediapipe_python, tmp_path, quantize, io_dtype):
    model = runtimes.residual_net()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 3)).astype(np.uint8)
    images = pixels / np.float32(255)
    metadata = tfprune.ImageMetadata(("ant", "bee", "cat", "dog"), mean=0, std=255)
    path = tmp_path / "model.tflite"
    options = tfprune.ExportOptions(metadata=metadata)
    tfprune.export(model, path, quantize=quantize, calibration=images, io_dtype=io_dtype, options=options)
    np.save(tmp_path / "pixels.npy", pixels[:10])
    command = [str(mediapipe_python), "-c", CLASSIFY, str(path), str(tmp_path / "pixels.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = [[row[label] for label in metadata.labels] for row in json.loads(done.stdout.splitlines()[-1])]
    np.testing.assert_allclose(scores, TFLiteModel(path).predict(images[:10]), atol=1e-5)
