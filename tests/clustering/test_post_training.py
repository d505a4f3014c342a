"""`cluster`: few values, zeros kept, all else as it was."""

import keras
import numpy as np
import pytest
from sklearn.cluster import KMeans

import tfprune

L = keras.layers


def net():
    inputs = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 8)), L.Conv2D(8, 3, name="inside"), L.ReLU()], name="inner")
    x = inner(
        L.DepthwiseConv2D(3, padding="same", name="depthwise")(L.Conv2D(8, 3, padding="same", name="outside")(inputs))
    )
    x = L.Bidirectional(L.LSTM(5))(L.Reshape((36, 8))(x))
    model = keras.Model(inputs, L.Dense(4, name="head")(x))
    model.compile("sgd", "mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return net()


def kernels(model):
    return [(v.path, v.numpy()) for v in model.variables if "kernel" in v.name]


def test_every_kernel_has_so_many_values_and_is_the_nearest_of_them(model):
    made = tfprune.cluster(model, 6)
    for (path, before), (_, after) in zip(kernels(model), kernels(made), strict=True):
        values = np.unique(before if "depthwise" in path else after)
        assert len(values) == (72 if "depthwise" in path else 6)
        nearest = values[np.abs(before[..., None] - values).argmin(axis=-1)]
        np.testing.assert_array_equal(after, nearest)


def test_values_are_the_means_of_their_weights(model):
    weights = model.get_layer("head").kernel.numpy()
    made = tfprune.cluster(model, 5).get_layer("head").kernel.numpy()
    for value in np.unique(made):
        assert weights[made == value].mean() == pytest.approx(value, abs=1e-7)
    best = KMeans(5, n_init=10, random_state=0).fit(weights.reshape(-1, 1)).inertia_
    assert ((weights - made) ** 2).sum() < 1.1 * best


def test_channels_have_values_of_their_own(model):
    chosen = [model.get_layer("outside"), model.get_layer("head")]
    made = tfprune.cluster(model, 3, per_channel=True, exclude=lambda layer: layer.name in ("inner", "bidirectional"))
    for layer in chosen:
        weights = made.get_layer(layer.name).kernel.numpy()
        rows = weights.reshape(-1, weights.shape[-1])
        assert [len(np.unique(row)) for row in rows.T] == [3] * rows.shape[1]
        assert len(np.unique(rows)) == 3 * rows.shape[1]
        # Each channel by itself is what a kernel of that channel alone would be.
        one = keras.Sequential([keras.Input((len(rows),)), L.Dense(1)])
        one.layers[0].kernel.assign(layer.kernel.numpy().reshape(-1, weights.shape[-1])[:, :1])
        np.testing.assert_array_equal(tfprune.cluster(one, 3).layers[0].kernel.numpy()[:, 0], rows[:, 0])


def test_zeros_stay_and_are_one_of_the_values(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    pruned = copy.get_layer("head").kernel
    pruned.assign(np.where(np.abs(pruned.numpy()) < 0.3, -0.0, pruned.numpy()))
    made = tfprune.cluster(copy, 4).get_layer("head").kernel.numpy()
    np.testing.assert_array_equal(made == 0, pruned.numpy() == 0)
    assert np.signbit(made[made == 0]).all()  # the mark of a pruned weight
    assert len(np.unique(made)) == 4
    moved = tfprune.cluster(copy, 2, keep_zeros=False).get_layer("head").kernel.numpy()
    assert len(np.unique(moved)) == 2
    assert moved.all()


def test_the_model_is_not_changed_and_its_copy_is_compiled_like_it(model):
    before = [weights.copy() for weights in model.get_weights()]
    made = tfprune.cluster(model, 4, exclude=[model.get_layer("head")])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(made.get_layer("head").kernel, model.get_layer("head").kernel)
    assert made.optimizer is not model.optimizer
    assert made.loss == "mse"
    assert len(np.unique(made.get_layer("inner").get_layer("inside").kernel)) == 4


def test_a_frozen_layer_shares_values_too(model):
    frozen = keras.models.clone_model(model)
    frozen.trainable = False
    assert len(np.unique(tfprune.cluster(frozen, 4).get_layer("outside").kernel)) == 4


def test_as_many_clusters_as_weights_change_nothing():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    np.testing.assert_array_equal(tfprune.cluster(model, 6).layers[0].kernel, model.layers[0].kernel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clusters": 1}, "must be 2 or more"),
        ({"clusters": 0}, "at least 1"),
        ({"clusters": 2.5}, "whole number"),
        ({"clusters": 41}, "head/kernel' has 40 weights and cannot have 41 clusters"),
        ({"clusters": 3, "per_channel": True}, "has 2 weights per channel and cannot have 3"),
        (
            {"clusters": 4, "init": "random"},
            r"init must be one of \('k-means\+\+', 'linear', 'density', 'gaussian mixture'\)",
        ),
        ({"clusters": 4, "exclude": lambda layer: True}, "no kernel whose weights could share"),
    ],
)
def test_what_cannot_be_is_refused(model, arguments, message):
    if "per_channel" in arguments:
        model = keras.Sequential([keras.Input((2,)), L.Dense(3)])
    with pytest.raises(ValueError, match=message):
        tfprune.cluster(model, **arguments)


def test_weights_that_are_not_numbers_and_quantized_layers_are_refused():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="mine")])
    model.layers[0].kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="mine/kernel' has weights that are not finite"):
        tfprune.cluster(model, 4)
    model.layers[0].enable_lora(2)
    with pytest.raises(ValueError, match="'mine' is quantized or has LoRA enabled"):
        tfprune.cluster(model, 4)
