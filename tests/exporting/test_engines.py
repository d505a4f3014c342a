"""Thirty int8 files of varied networks in engines of others: each computes what the file does here."""

import subprocess

import numpy as np
import pytest
from engines import ENGINES, program, python_with
from networks import of_images
from runtimes import by_reference
from varied_networks import NETWORKS

import tfprune
from tfprune.tflite.model import TFLiteModel

pytestmark = pytest.mark.peers

PATHS = ("aware", "calibrated")
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
LACKING = {"tflite-micro": {"GELU"}}
"""Operators that an engine lacks; docs/deploying says so."""
VERSIONS = {"tflite-runtime": (2, 14)}
STEPS = {"openvino": 4}
"""How far apart outputs may be: one engine computes with real numbers between the operators; else 2."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of files with inputs, and the report of each by its name."""
    folder, reports = tmp_path_factory.mktemp("engines") / "files", {}
    folder.mkdir()
    for network in NETWORKS:
        model = of_images(network)
        aware = tfprune.quantize_aware(model)
        for _ in range(2):
            aware(IMAGES, training=True)
        for path, each in zip(PATHS, (aware, model), strict=True):
            name = f"{network.__name__}-{path}"
            target = folder / f"{name}.tflite"
            reports[name] = tfprune.export(each, target, quantize="int8", calibration=IMAGES)
            (image,) = TFLiteModel(target).inputs
            np.savez(folder / f"{name}.inputs.npz", **{"0": image.quantize(IMAGES[:10])})
    return folder, reports


@pytest.fixture(scope="module", params=ENGINES)
def answers(request, exported, tmp_path_factory):
    """An engine's name, and its outputs for each file, or its error."""
    folder, _ = exported
    python = python_with(request.param, tmp_path_factory.mktemp(request.param) / "environment")
    command = [str(python), "-c", program(request.param), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return request.param, {
        path.name.removesuffix(".outputs.npz"): dict(np.load(path)) for path in folder.glob("*.outputs.npz")
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_engines_compute_what_the_file_does(answers, exported, network, path):
    engine, found = answers
    folder, reports = exported
    name = f"{network.__name__}-{path}"
    if "error" in found[name]:
        report = reports[name]
        lacking = {each.name for each in report.operators} & LACKING.get(engine, set())
        newer = engine in VERSIONS and tuple(map(int, report.min_runtime.split(".")[:2])) > VERSIONS[engine]
        assert lacking or newer, found[name]["error"]
        return
    loaded = TFLiteModel(folder / f"{name}.tflite")
    expected = by_reference(folder / f"{name}.tflite", np.load(folder / f"{name}.inputs.npz")["0"])
    for number, (details, ours) in enumerate(zip(loaded.outputs, expected, strict=True)):
        theirs = found[name][str(number)]
        assert theirs.dtype == ours.dtype == details.dtype
        assert np.abs(theirs.astype(int) - ours).max() <= STEPS.get(engine, 2)
