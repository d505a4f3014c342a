"""What reads a model that was made for training reads the plain model in it, or says which to give."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.stripping import plain

L = keras.layers
X = np.random.default_rng(0).normal(size=(20, 16)).astype("float32")


def net():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, "relu", name="hidden"), L.Dense(4, name="classes")])
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="module")
def clustered():
    return tfprune.cluster_aware(net(), 4)


@pytest.fixture(scope="module")
def made(clustered):
    return {
        "clustered": clustered,
        "quantized": tfprune.quantize_aware(clustered),
        "distilled": tfprune.distill(tfprune.quantize_aware(clustered), net()),
    }


@pytest.mark.parametrize("kind", ["clustered", "quantized", "distilled"])
def test_coded_size_counts_the_values_that_are_shared(made, kind):
    kernels = [tensor for tensor in tfprune.coded_size(made[kind]).tensors if tensor.name.endswith("kernel")]
    assert [(tensor.name.split("/")[-2], tensor.values) for tensor in kernels] == [("hidden", 4), ("classes", 4)]
    assert [type(layer).__name__ for layer in plain(made[kind]).layers if layer.weights] == ["Dense", "Dense"]


def test_errors_of_rounding_are_those_of_the_student():
    student = net()
    found = tfprune.quantization_errors(tfprune.distill(student, net()), X)
    assert found.model == student.name
    assert [row.layers for row in found.rows] == [("hidden",), ("classes",)]


def test_compress_asks_for_the_student(tmp_path):
    model = tfprune.distill(net(), net())
    with pytest.raises(ValueError, match=r"is distilled. Give tfprune.strip\(model\)"):
        tfprune.compress(model, (X, X[:, :4]), budget=tfprune.Budget(macs=0.5), path=tmp_path / "model.tflite")


@pytest.mark.parametrize(("kind", "step"), [("clustered", "cluster_aware"), ("quantized", "quantize_aware")])
def test_channels_are_removed_before(made, kind, step):
    with pytest.raises(ValueError, match="No channel") as raised:
        tfprune.prune_channels(made[kind], 0.5)
    assert f"tfprune.{step}" in str(raised.value)
    assert "KerasTensor" not in str(raised.value)
