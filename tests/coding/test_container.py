"""Files come back bit for bit, smaller than by gzip where weights share values; what is damaged is refused."""

import gzip
import runpy
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from coding.files import constants_file, random_constants
from hypothesis import given, settings
from hypothesis import strategies as st

import tfprune
from tfprune.coding.container import coded_segments, container
from tfprune.coding.plain_reader import unpacked
from tfprune.runtime import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile

READER = Path(__file__).parents[2] / "recipes" / "unpack_weights.py"
RANDOM = np.random.default_rng(0)


def comes_back(seed):
    content = constants_file(random_constants(np.random.default_rng(seed)))
    return unpacked(container(TFLiteFile(content))) == content


def weights(sparsity, clusters):
    values = RANDOM.laplace(0, 20, (64, 300))
    grid = np.linspace(-120, 120, clusters)
    shared = grid[np.abs(values[..., None] - grid).argmin(axis=-1)]
    return np.where(np.abs(values) < np.quantile(np.abs(values), sparsity), 0, shared).astype(np.int8)


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_random_files_come_back(seed):
    assert comes_back(seed)


@pytest.mark.slow
def test_a_thousand_random_files_come_back():
    assert all(comes_back(seed) for seed in range(1000))


@pytest.mark.parametrize(
    ("sparsity", "clusters", "share"), [(0, 16, 0.85), (0.5, 16, 0.85), (0.9, 250, 0.85), (0.9, 16, 0.75)]
)
def test_shared_and_pruned_weights_beat_gzip(sparsity, clusters, share):
    content = constants_file([weights(sparsity, clusters)])
    assert len(container(TFLiteFile(content))) < share * len(gzip.compress(content, 9))


def test_it_is_no_larger_than_deflated_where_nothing_repeats():
    content = constants_file([RANDOM.integers(-128, 128, 20_000).astype(np.int8)])
    assert len(container(TFLiteFile(content))) < len(zlib.compress(content, 9)) + 40


def test_shared_floats_are_coded_as_values_and_others_byte_by_byte():
    values = RANDOM.normal(size=16).astype(np.float32)[RANDOM.integers(0, 16, 5000)]
    (one,) = coded_segments(TFLiteFile(constants_file([values])))
    assert (one.width, one.count, len(one.symbols)) == (4, 5000, 16)
    assert len(one.code) < 1.01 * 5000 / 2
    noise = RANDOM.normal(size=5000).astype(np.float32)
    content = constants_file([noise])
    planes = list(coded_segments(TFLiteFile(content)))
    assert {(plane.width, plane.stride) for plane in planes} == {(1, 4)}
    assert len(container(TFLiteFile(content))) < 0.95 * len(gzip.compress(content, 9))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("container")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(4)])
    tfprune.export(tfprune.cluster(model, 16), folder / "model.tflite")
    return tfprune.pack(folder / "model.tflite", folder / "model.tfz")


def test_an_exported_file_comes_back_and_runs(exported, tmp_path):
    path = tfprune.unpack(exported, tmp_path / "again.tflite")
    content = exported.with_suffix(".tflite").read_bytes()
    assert path.read_bytes() == content
    assert exported.stat().st_size < 0.8 * len(gzip.compress(content, 9))
    assert TFLiteModel(path).predict(np.ones((1, 64), "float32")).shape == (1, 4)


def test_the_plain_reader_needs_nothing_but_python(exported, tmp_path):
    out = tmp_path / "again.tflite"
    subprocess.run([sys.executable, "-I", "-S", READER, exported, out], check=True)
    assert out.read_bytes() == exported.with_suffix(".tflite").read_bytes()
    lines = READER.read_text().splitlines()
    assert len(lines) <= 60
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    assert imports <= set(sys.stdlib_module_names)
    assert set(runpy.run_path(str(READER))) >= {"unpacked", "decoded"}


def test_every_damaged_byte_is_noticed(exported, tmp_path):
    content = exported.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 100)):
        damaged = bytearray(content)
        damaged[place] ^= 1 + place % 255
        with pytest.raises(ValueError, match=r"no \.tfz file|damaged"):
            unpacked(bytes(damaged))
    for length in (0, 3, 19, 20, 100, len(content) - 1):
        with pytest.raises(ValueError, match=r"no \.tfz file|damaged"):
            unpacked(content[:length])


@pytest.mark.parametrize("field", range(7))
def test_what_somebody_made_to_look_whole_is_refused(exported, tmp_path, field):
    """The numbers of the first segment are changed, and the checksum with them."""
    content = exported.read_bytes()
    _, _, size, checksum, index_size = struct.unpack_from("<4sIIII", content)
    index = bytearray(zlib.decompress(content[20 : 20 + index_size]))
    numbers = list(struct.unpack_from("<IIIBBHI", index, 4))
    numbers[field] = 2**7 if field in (3, 4) else 2**15 if field == 5 else 2**31
    struct.pack_into("<IIIBBHI", index, 4, *numbers)
    deflated = zlib.compress(bytes(index))
    tail = struct.pack("<III", size, checksum, len(deflated)) + deflated + content[20 + index_size :]
    (tmp_path / "made.tfz").write_bytes(b"TFZ1" + struct.pack("<I", zlib.crc32(tail)) + tail)
    with pytest.raises(ValueError, match=r"made\.tfz"):
        tfprune.unpack(tmp_path / "made.tfz", tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


def test_paths_are_checked_before_anything_is_written(exported, tmp_path):
    source = exported.with_suffix(".tflite")
    with pytest.raises(ValueError, match=r"must end in '.tfz'"):
        tfprune.pack(source, tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"must end in '.tflite'"):
        tfprune.unpack(exported, tmp_path / "model.bin")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tfprune.pack(source, exported)
    with pytest.raises(TypeError, match=r"Received the model .net.\. Export it first"):
        tfprune.pack(keras.Sequential(name="net"), exported)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        tfprune.unpack(exported, source)
    with pytest.raises(FileNotFoundError, match="no file at"):
        tfprune.unpack(tmp_path / "missing.tfz", tmp_path / "a.tflite")
    (tmp_path / "short.tflite").write_bytes(source.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"short.tflite' is no whole .tflite file"):
        tfprune.pack(tmp_path / "short.tflite", tmp_path / "short.tfz")
    assert not list(tmp_path.glob("*.tfz"))
    assert tfprune.pack(source, exported, overwrite=True) == exported
