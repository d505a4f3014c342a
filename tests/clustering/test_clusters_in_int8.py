"""Shared values and int8 together: the file, too, has no more of them, and computes what the model does."""

import keras
import numpy as np
import pytest

import tfprune
from tfprune.clustering import is_cluster_aware, strip_clusters
from tfprune.runtime import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile, type_name

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
Y = np.arange(32) % 4
CLUSTERS = 4


def net(whole=False):
    """A convolution and a dense layer with BatchNormalization, or a layer of each kind that has a kernel."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = L.ReLU()(L.BatchNormalization(momentum=0.5)(x))
    if whole:
        x = L.SeparableConv2D(12, 3, activation="relu", name="separable")(x)
        x = L.Conv2DTranspose(6, 3, strides=2, use_bias=False, name="transposed")(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.5)(x))
    x = L.Conv1D(8, 3, strides=4, activation="relu", name="sequence")(L.Reshape((-1, x.shape[-1]))(x))
    x = L.ReLU()(L.BatchNormalization(momentum=0.5)(L.Dense(16, name="hidden")(L.Flatten()(x))))
    model = keras.Model(inputs, L.Dense(4, activation="softmax", name="classes")(x))
    for name in ("first", "hidden"):
        kernel = model.get_layer(name).kernel.numpy()
        model.get_layer(name).kernel.assign(np.where(np.abs(kernel) < np.quantile(np.abs(kernel), 0.5), -0.0, kernel))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def int8_kernels(path):
    """The constants of the file that are int8 kernels: their values and scales."""
    file = TFLiteFile.read(path).model
    tensors = [tensor for tensor in file.subgraphs[0].tensors if type_name(tensor) == "int8"]
    stored = [(tensor, file.buffers[tensor.buffer].data) for tensor in tensors]
    return [(np.frombuffer(data, np.int8), tensor) for tensor, data in stored if data is not None]


@pytest.fixture(scope="module", params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "whole"])
def trained(request, tmp_path_factory):
    model = net(request.param)
    aware = tfprune.quantize_aware(tfprune.cluster_aware(model, CLUSTERS))
    aware.fit(X, Y, batch_size=16, verbose=0)
    path = tmp_path_factory.mktemp("int8") / "model.tflite"
    return model, aware, path, tfprune.export(aware, path, quantize="int8")


def test_every_kernel_of_the_file_has_so_many_values(trained):
    _, _, path, _ = trained
    found = {tensor.name.decode(): values for values, tensor in int8_kernels(path)}
    counts = {name: len(np.unique(values)) for name, values in found.items() if "depthwise" not in name}
    assert len(counts) in (4, 6)
    assert set(counts.values()) == {CLUSTERS}


def test_the_file_computes_what_the_model_does(trained):
    _, aware, path, report = trained
    assert report.float_operators == ()
    assert report.zeros_kept == 1.0
    outputs = TFLiteModel(path).predict(X)
    step = 1 / 256
    assert np.abs(outputs - aware(X)).max() < 0.01 * step


def test_the_scales_of_channels_are_those_of_batch_normalization_alone(trained):
    _, aware, path, _ = trained
    (layer,) = [layer for layer in aware.layers if layer.name == "quantize_first"]
    norm = layer.normalization
    factor = np.abs(norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon))
    largest = np.abs(layer.maker(layer.layer.kernel)).max()
    (tensor,) = [tensor for _, tensor in int8_kernels(path) if list(tensor.shape) == [8, 3, 3, 3]]
    np.testing.assert_allclose(tensor.quantization.scale, largest * factor / 127, rtol=1e-5)


def test_stripping_gives_plain_layers_of_shared_values_with_zeros_kept(trained):
    model, aware, _, _ = trained
    plain = tfprune.strip(aware)
    assert "tfprune" not in plain.to_json()
    shared = [
        layer.kernel for layer in plain.layers if hasattr(layer, "kernel") and "Depthwise" not in type(layer).__name__
    ]
    assert [len(np.unique(kernel)) for kernel in shared] in ([CLUSTERS] * 4, [CLUSTERS] * 6)
    for name in ("first", "hidden"):
        before, after = (each.get_layer(name).kernel.numpy() for each in (model, plain))
        np.testing.assert_array_equal(before == 0, after == 0)


def test_centroids_train_through_the_rounding(trained):
    model, aware, _, _ = trained
    start = tfprune.cluster(model, CLUSTERS).get_layer("sequence").kernel.numpy()
    assert np.abs(np.unique(start) - np.unique(tfprune.strip(aware).get_layer("sequence").kernel)).max() > 1e-5


def test_it_loads_as_it_was_saved(trained, tmp_path):
    _, aware, _, _ = trained
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded(X), aware(X))


@pytest.mark.parametrize("mode", ["freeze", "fold"])
def test_batch_normalization_never_goes_into_shared_values(mode):
    aware = tfprune.quantize_aware(tfprune.cluster_aware(net(), CLUSTERS), batch_normalization=mode)
    (layer,) = [layer for layer in aware.layers if layer.name == "quantize_first"]
    assert layer.normalization is not None
    assert not layer.normalization.trainable
    assert len(np.unique(layer.maker(layer.layer.kernel))) == CLUSTERS


@pytest.mark.slow
def test_what_stays_in_float_shares_values_too(tmp_path):
    inputs = keras.Input((6, 4))
    x = L.GRU(5, unroll=True, name="recurrent")(L.Conv1D(5, 2, name="kept")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="head")(x))
    model.compile("sgd", "mse", run_eagerly=True)
    clustered = tfprune.cluster_aware(model, 3)
    aware = tfprune.quantize_aware(clustered, exclude=[clustered.get_layer("kept")])
    x = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    aware.fit(x, np.ones((8, 3)), verbose=0)
    assert is_cluster_aware(aware)
    plain = strip_clusters(aware)
    np.testing.assert_allclose(plain(x), aware(x), atol=1e-6)
    report = tfprune.export(aware, tmp_path / "model.tflite", quantize="int8", calibration=x)
    assert {name for name in map(str, report.float_operators) if "kept" in name}
    both = tfprune.strip(plain)
    assert "tfprune" not in both.to_json()
    assert len(np.unique(both.get_layer("kept").kernel)) == 3


def test_channels_with_values_of_their_own_keep_their_scales():
    aware = tfprune.quantize_aware(tfprune.cluster_aware(net(), 2, per_channel=True))
    (layer,) = [layer for layer in aware.layers if layer.name == "quantize_sequence"]
    rounded = layer.quantized("kernel").numpy()
    assert [len(np.unique(channel)) for channel in rounded.reshape(-1, 8).T] == [2] * 8
    assert not layer.one_scale


@pytest.mark.slow
def test_values_are_shared_in_half_precision_too():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = net()
    finally:
        keras.config.set_dtype_policy("float32")
    aware = tfprune.quantize_aware(tfprune.cluster_aware(model, CLUSTERS))
    aware.fit(X, Y, batch_size=16, verbose=0)
    found = [layer.quantized("kernel").numpy() for layer in aware.layers if getattr(layer, "maker", None) is not None]
    assert [len(np.unique(kernel)) for kernel in found] == [CLUSTERS] * 4


@pytest.mark.slow
def test_shared_layers_and_models_inside_share_values(tmp_path):
    inputs = keras.Input((6, 6, 3))
    inner = keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(3, 3, padding="same"), L.BatchNormalization(), L.ReLU()])
    twice = L.Conv2D(3, 3, padding="same")
    head = L.Dense(2)(L.Flatten()(L.Add()([twice(twice(inner(inputs))), inputs])))
    model = keras.Model(inputs, head)
    model.compile(keras.optimizers.SGD(1e-5), "mse", run_eagerly=True)  # the gradients of 81 weights are summed
    aware = tfprune.quantize_aware(tfprune.cluster_aware(model, CLUSTERS))
    aware.fit(X[:, :6, :6], np.ones((32, 2)), batch_size=16, verbose=0)
    tfprune.export(aware, tmp_path / "model.tflite", quantize="int8")
    found = int8_kernels(tmp_path / "model.tflite")
    assert [len(np.unique(values)) for values, _ in found] == [CLUSTERS] * 3
