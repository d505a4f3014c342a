"""`cluster_aware`: few values in every step, trained, zeros kept, and a plain model in the end."""

import keras
import numpy as np
import pytest
from clustering.test_post_training import net

import tfprune
from tfprune.clustering import is_cluster_aware, strip_clusters
from tfprune.clustering.codebook import Codebook
from tfprune.graph.chains import chains
from tfprune.runtime import TFLiteModel

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 6, 6, 2)).astype("float32")
Y = np.abs(X).mean(axis=(1, 2)).argmax(axis=1)


def small(zeros=0.5):
    """A convolution and a dense layer, of which the small weights are zero."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(8, 3, activation="relu", name="conv"),
            L.Dropout(0.1),
            L.GlobalAveragePooling2D(),
            L.Dense(2, activation="softmax", name="classes"),
        ]
    )
    for layer in (model.get_layer("conv"), model.get_layer("classes")):
        kernel = layer.kernel.numpy()
        layer.kernel.assign(np.where(np.abs(kernel) < np.quantile(np.abs(kernel), zeros), -0.0, kernel))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def codebooks(model):
    return [layer for *_, layer in chains(model) if isinstance(layer, Codebook)]


@pytest.fixture(scope="module")
def trained():
    """A pruned model, and what it is after an epoch with shared values."""
    model = small()
    aware = tfprune.cluster_aware(model, 5)
    before = [codebook.centroids.numpy() for codebook in codebooks(aware)]
    aware.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    return model, aware, before


def test_it_starts_as_the_model_that_shares_values_without_training():
    model = net()
    aware, shared = tfprune.cluster_aware(model, 6), tfprune.cluster(model, 6)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(aware(x), shared(x), rtol=1e-5, atol=1e-6)
    plain = strip_clusters(aware)
    for one, other in zip(plain.get_weights(), shared.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [type(layer) for layer in plain.layers] == [type(layer) for layer in model.layers]
    assert [layer.name for layer in aware.layers] == [layer.name for layer in model.layers]


def test_centroids_train_and_zeros_stay(trained):
    model, aware, before = trained
    after = [codebook.centroids.numpy() for codebook in codebooks(aware)]
    assert min(np.abs(new - old).max() for new, old in zip(after, before, strict=True)) > 1e-4
    plain = strip_clusters(aware)
    for name in ("conv", "classes"):
        kernel = plain.get_layer(name).kernel.numpy()
        assert len(np.unique(kernel)) == 5
        np.testing.assert_array_equal(kernel == 0, model.get_layer(name).kernel.numpy() == 0)
    np.testing.assert_allclose(plain(X), aware(X), rtol=1e-5, atol=1e-6)


def test_weights_move_from_one_centroid_to_another():
    model = keras.Sequential([keras.Input((4,)), L.Dense(1, use_bias=False, name="sum")])
    model.layers[0].kernel.assign([[-1.0], [-0.9], [0.9], [1.0]])
    model.compile(keras.optimizers.SGD(0.9), "mse", run_eagerly=True)
    aware = tfprune.cluster_aware(model, 2)
    x = np.eye(4, dtype="float32")
    aware.fit(np.tile(x, (20, 1)), np.tile([[-1.0], [2.0], [2.0], [2.0]], (20, 1)), batch_size=4, verbose=0)
    np.testing.assert_allclose(strip_clusters(aware).layers[0].kernel, [[-1.0], [2.0], [2.0], [2.0]], atol=1e-2)


def test_a_step_by_hand():
    """y = c1 x1 + c1 x2 + c2 x3, and the loss is y: the gradients are x1 + x2 and x3."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[1.0], [3.0], [7.0]])
    model.compile(keras.optimizers.SGD(0.1), lambda y, prediction: prediction, run_eagerly=True)
    aware = tfprune.cluster_aware(model, 2, init="linear")
    aware.fit(np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 1)), verbose=0)
    np.testing.assert_allclose(codebooks(aware)[0].centroids, [[2.0 - 0.3, 7.0 - 0.4]], rtol=1e-6)
    np.testing.assert_allclose(aware.layers[0].layer.kernel, [[0.9], [2.8], [6.6]], rtol=1e-6)
    np.testing.assert_allclose(strip_clusters(aware).layers[0].kernel, [[1.7], [1.7], [6.6]], rtol=1e-6)


def test_what_is_saved_goes_on_and_the_plain_model_holds_nothing_of_tfprune(trained, tmp_path):
    _, aware, _ = trained
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded(X), aware(X))
    assert is_cluster_aware(loaded)
    assert "tfprune" in loaded.to_json()
    assert "tfprune" not in strip_clusters(loaded).to_json()


def test_export_writes_the_plain_model(trained, tmp_path):
    _, aware, _ = trained
    report = tfprune.export(aware, tmp_path / "shared.tflite", calibration=X)
    assert {operator.name for operator in report.operators} == {"CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"}
    outputs = TFLiteModel(tmp_path / "shared.tflite").predict(X)
    np.testing.assert_allclose(outputs, aware(X), atol=1e-5)


def test_the_model_is_not_changed_and_excluded_layers_are_left_alone():
    model = small()
    before = [weights.copy() for weights in model.get_weights()]
    aware = tfprune.cluster_aware(model, 4, exclude=[model.get_layer("classes")])
    assert all(map(np.array_equal, before, model.get_weights()))
    assert type(aware.get_layer("classes")) is L.Dense
    assert len(codebooks(aware)) == 1
    model.get_layer("conv").trainable = False
    frozen = tfprune.cluster_aware(model, 4)
    assert [len(layer.trainable_variables) for layer in frozen.layers if hasattr(layer, "makers")] == [0, 3]


def test_it_costs_what_the_model_costs():
    model = small()
    assert tfprune.profile(tfprune.cluster_aware(model, 4)).macs == tfprune.profile(model).macs


def test_a_kernel_of_zeros_alone_trains():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    aware = tfprune.cluster_aware(model, 2)
    aware.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    assert strip_clusters(aware).layers[0].kernel.numpy().any()


def test_what_cannot_be_is_refused():
    aware = tfprune.cluster_aware(small(), 4)
    with pytest.raises(ValueError, match=r"share values already: .*'conv'"):
        tfprune.cluster_aware(aware, 4)
    with pytest.raises(ValueError, match="is not cluster-aware"):
        strip_clusters(small())
    with pytest.raises(ValueError, match="cannot have 400 clusters"):
        tfprune.cluster_aware(small(), 400)


WAYS = {
    "adam": {"optimizer": "adam"},
    "momentum": {"optimizer": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)},
    "adamw": {"optimizer": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)},
    "rmsprop": {"optimizer": "rmsprop"},
    "muon": {"optimizer": lambda: keras.optimizers.Muon(0.01)},
    "several steps": {"optimizer": "sgd", "steps_per_execution": 3},
    "xla": {"optimizer": "adam", "jit_compile": True},
    "eager": {"optimizer": "sgd", "run_eagerly": True},
    "half": {"optimizer": "adam", "policy": "mixed_float16"},
    "bfloat": {"optimizer": "sgd", "policy": "mixed_bfloat16"},
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("per_channel", [False, True], ids=["kernel", "channel"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training(way, per_channel):
    options = dict(WAYS[way])
    keras.config.set_dtype_policy(options.pop("policy", "float32"))
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = options.pop("optimizer")
    model.compile(
        optimizer if isinstance(optimizer, str) else optimizer(), "sparse_categorical_crossentropy", **options
    )
    aware = tfprune.cluster_aware(model, 4, per_channel=per_channel, exclude=lambda layer: layer.name == "classes")
    (codebook,) = codebooks(aware)
    before = codebook.centroids.numpy()
    aware.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    after = codebook.centroids.numpy()
    assert np.isfinite(after).all()
    assert np.abs(after - before).max() > 1e-6
    kernel = strip_clusters(aware).get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(kernel == 0, model.get_layer("conv").kernel.numpy() == 0)
    columns = kernel.reshape(-1, 8).T if per_channel else kernel.reshape(1, -1)
    assert max(len(np.unique(column)) for column in columns) <= 4
