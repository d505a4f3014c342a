"""A file is unpacked once, whoever looks into it."""

import ast
import gc
import hashlib
import weakref
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest

import tfprune
from tfprune.exporting import ExportOptions, ImageMetadata
from tfprune.measure.benchmarking import time_in_turns
from tfprune.measure.file_costs import file_costs
from tfprune.tflite import unpacking
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, pack
from tfprune_cli.file_profile import profile_file

L = keras.layers
IMAGES = np.random.default_rng(0).random((20, 8, 8, 3)).astype(np.float32)
OPTIONS = {
    "float32": {},
    "float16": {"quantize": "float16"},
    "dynamic": {"quantize": "dynamic"},
    "int8": {"quantize": "int8", "calibration": IMAGES},
    "int8-float-io": {"quantize": "int8", "calibration": IMAGES, "io_dtype": "float32"},
    "int16x8": {"quantize": "int16x8", "calibration": IMAGES},
    "int8-weights": {"quantize": "int8_weights"},
    "int4-weights": {"quantize": "int4_weights"},
    "sparse": {"options": ExportOptions(sparse=True)},
    "metadata": {"options": ExportOptions(metadata=ImageMetadata(("cat", "dog"), mean=0, std=255))},
}


def build():
    inputs = keras.Input((8, 8, 3), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(64, 1, activation="relu")(L.Conv2D(64, 3, activation="relu")(inputs)))
    model = keras.Model(inputs, L.Dense(2, activation="softmax", name="scores")(x))
    rng = np.random.default_rng(0)
    model.set_weights([np.where(rng.random(each.shape) < 0.9, 0, each) for each in model.get_weights()])
    return model


@pytest.fixture
def visits(monkeypatch):
    """How often each content was unpacked."""
    counts, unpack = Counter(), unpacking.unpack

    def counting(content):
        counts[hashlib.sha256(content).hexdigest()] += 1
        return unpack(content)

    monkeypatch.setattr(unpacking, "unpack", counting)
    return counts


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mode", OPTIONS)
def test_export_unpacks_each_content_once(mode, visits, tmp_path):
    if mode.endswith("-weights"):
        pytest.importorskip("ai_edge_quantizer")
    tfprune.export(build(), tmp_path / "model.tflite", **OPTIONS[mode])
    written = hashlib.sha256((tmp_path / "model.tflite").read_bytes()).hexdigest()
    assert visits[written] == 1
    assert set(visits.values()) == {1}
    # Besides the file, what the converter wrote, the ranges it measured, and what an option changed after that.
    assert len(visits) == 2 + (mode in ("sparse", "metadata")) + ("calibration" in OPTIONS[mode])


def test_a_file_whose_output_keeps_its_name_is_the_converters(visits, tmp_path):
    tfprune.export(keras.Sequential([keras.Input((4,)), L.Dense(2)]), tmp_path / "model.tflite")
    assert list(visits.values()) == [1]


def test_a_quantize_aware_model(visits, tmp_path):
    aware = tfprune.quantize_aware(build())
    aware(IMAGES, training=True)
    tfprune.export(aware, tmp_path / "model.tflite", quantize="int8")
    assert list(visits.values()) == [1, 1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "model.tflite"
    tfprune.export(build(), path)
    return path


def test_one_value_for_all_that_look_into_a_file(written, visits):
    file = TFLiteFile.read(written)
    loaded = TFLiteModel(file)
    assert TFLiteModel(file).predict(IMAGES).shape == (20, 2)
    assert loaded.file is file
    assert loaded.content == written.read_bytes()
    assert file_costs(loaded.file) == file_costs(file)
    assert list(visits.values()) == [1]


@pytest.mark.parametrize(
    "look",
    [
        lambda path: time_in_turns([TFLiteFile.read(path)], runs=4, warmup=1, num_threads=1, starts=3),
        lambda path: tfprune.benchmark(path, runs=4, warmup=1),
        lambda path: profile_file(Path(path)),
        TFLiteModel,
    ],
    ids=["starts", "benchmark", "profile", "TFLiteModel"],
)
def test_benchmark_profile_and_runtime_unpack_once(look, written, visits):
    look(str(written))
    assert list(visits.values()) == [1]


def test_a_copy_to_edit_leaves_the_file_as_it_is_and_shares_its_buffers(written):
    file = TFLiteFile.read(written)
    copy = file.editable()
    assert [a.data is b.data for a, b in zip(copy.buffers, file.model.buffers, strict=True)] == [True] * len(
        copy.buffers
    )
    copy.subgraphs[0].operators.clear()
    copy.signatureDefs[0].outputs[0].name = b"other"
    copy.buffers.append(copy.buffers[0])
    assert pack(file.editable()) == pack(TFLiteFile(file.content).editable())


def test_nothing_of_a_file_outlives_it(written):
    file = TFLiteFile.read(written)
    model = weakref.ref(file.model)
    del file
    gc.collect()
    assert model() is None


def test_nothing_unpacks_on_its_own():
    folder = Path(tfprune.__file__).parent
    own = {
        path.relative_to(folder.parent).as_posix()
        for path in [*folder.rglob("*.py"), *(folder.parent / "tfprune_cli").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if (getattr(node, "module", "") == unpacking.__name__ and "unpack" in [each.name for each in node.names])
        or (isinstance(node, ast.Attribute) and node.attr == "InitFromPackedBuf")
    }
    assert own == {"tfprune/tflite/unpacking.py"}
