"""What weights take, tensor by tensor, by hand and from files."""

import gzip

import keras
import numpy as np
import pytest
from coding.files import constants_file

import tfprune


@pytest.fixture(scope="module")
def model():
    layers = keras.layers.Dense(8, name="quarter"), keras.layers.Dense(4)
    model = keras.Sequential([keras.Input((8,)), *layers], name="net")
    kernel = np.zeros((8, 8), "float32")
    kernel[0, :8], kernel[1, :4], kernel[1, 4:] = 1.0, 2.0, -0.0
    model.layers[0].kernel.assign(kernel)
    return model


def test_a_kernel_by_hand(model):
    first, second = tfprune.coded_size(model).tensors  # biases have fewer than 16 numbers
    assert (first.name, first.weights, first.values, first.stored_bytes) == ("net/quarter/kernel", 64, 3, 256)
    assert first.zeros == 52 / 64  # the marked ones too
    shares = np.array([52, 8, 4]) / 64
    assert first.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert first.codebook_bytes == 64 * 2 / 8 + 3 * 4
    assert first.huffman_bytes == (52 + 2 * 12) / 8 + 0.5 + 3 * 4
    # Twelve weights side by side: a bit each for their values, and one for their distances.
    assert first.sparse_bytes == (12 + 12) / 8 + 2 * 4
    assert second.values == 32


def test_a_file_is_measured_as_it_is_packed(tmp_path):
    random = np.random.default_rng(0)
    few = random.integers(-2, 3, (64, 64)).astype(np.int8)
    path = tmp_path / "model.tflite"
    path.write_bytes(constants_file([few, random.normal(size=(32, 32)).astype(np.float32)]))
    report = tfprune.coded_size(path)
    assert [tensor.name for tensor in report.tensors] == ["constant_0", "constant_1"]
    assert [tensor.values for tensor in report.tensors] == [5, 1024]
    assert report.tensors[0].entropy == pytest.approx(np.log2(5), abs=0.01)
    assert report.file_bytes == path.stat().st_size
    assert report.gzip_bytes == len(gzip.compress(path.read_bytes(), 9))
    assert report.packed_bytes == tfprune.pack(path, tmp_path / "model.tfz").stat().st_size
    text = str(report)
    assert f"packed {report.packed_bytes:,} B" in text
    assert "constant_0" in text
    assert text.count("all") == 1


def test_sharing_and_pruning_show(model):
    before = tfprune.coded_size(model).tensors[1]
    after = tfprune.coded_size(tfprune.cluster(model, 4)).tensors[1]
    assert before.entropy == 5.0
    assert after.entropy <= 2.0


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"path of a \.tflite file\. Received: int"):
        tfprune.coded_size(3)
    with pytest.raises(FileNotFoundError):
        tfprune.coded_size(tmp_path / "missing.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(ValueError, match=r"no whole \.tflite file"):
        tfprune.coded_size(tmp_path / "broken.tflite")
    with pytest.raises(ValueError, match="is not built"):
        tfprune.coded_size(keras.Sequential([keras.layers.Dense(3)]))


def test_a_model_without_weights_has_a_report():
    report = tfprune.coded_size(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    assert report.tensors == ()
    assert "Coded size" in str(report)
