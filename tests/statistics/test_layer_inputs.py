"""Norms of the inputs of layers, against loops over windows and samples."""

import keras
import numpy as np
import pytest
from networks import randomize, same, weights_of

import tfprune
from tfprune.criteria import Wanda
from tfprune.masking import recorded_mask
from tfprune.statistics import gather

L = keras.layers


@pytest.fixture(scope="module")
def found():
    """A network with most kinds of kernels, its inputs, and the norms."""
    inputs = keras.Input((5, 5, 2))
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(inputs)
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = L.Conv2D(4, 1, groups=2, name="grouped")(x)
    x = L.Conv2DTranspose(3, 2, strides=2, name="transposed")(x)
    x = L.Reshape((36, 3))(x)
    x = L.EinsumDense("abc,cde->abde", (36, 2, 4), activation="tanh", name="einsum")(x)
    x = L.GlobalAveragePooling1D()(L.Reshape((36, 8))(x))
    shared = L.Dense(8, "relu", name="dense")
    model = randomize(keras.Model(inputs, shared(shared(x))))
    x = np.random.default_rng(0).normal(size=(6, 5, 5, 2)).astype("float32")
    before = weights_of(model)
    norms = gather(model, x, ["input_norm"], batch_size=4).variables["input_norm"]
    assert same(before, weights_of(model))
    assert model.get_layer("conv").activation is keras.activations.relu

    def into(name, node=0):
        tensor = model.get_layer(name)._inbound_nodes[node].input_tensors[0]
        return np.asarray(keras.Model(inputs, tensor)(x))

    return model, norms, into


def test_dense_by_hand(found):
    model, norms, into = found
    squares = sum((into("dense", node) ** 2).sum(0) for node in (0, 1)) / 6
    expected = np.broadcast_to(np.sqrt(squares)[:, None], (8, 8))
    np.testing.assert_allclose(norms[model.get_layer("dense").kernel.path], expected, rtol=1e-5)
    squares = (into("einsum") ** 2).sum((0, 1)) / 6
    expected = np.broadcast_to(np.sqrt(squares)[:, None, None], (3, 2, 4))
    np.testing.assert_allclose(norms[model.get_layer("einsum").kernel.path], expected, rtol=1e-5)


def test_convolutions_by_loops_over_windows(found):
    model, norms, into = found
    padded = np.pad(into("conv"), [(0, 0), (1, 1), (1, 1), (0, 0)])  # 5 pixels at stride 2: one on each side
    squares = np.zeros((3, 3, 2))
    for row in range(0, 5, 2):
        for column in range(0, 5, 2):
            squares += (padded[:, row : row + 3, column : column + 3] ** 2).sum(0) / 6
    expected = np.broadcast_to(np.sqrt(squares)[..., None], (3, 3, 2, 4))
    np.testing.assert_allclose(norms[model.get_layer("conv").kernel.path], expected, rtol=1e-5)

    padded = np.pad(into("depthwise"), [(0, 0), (1, 1), (1, 1), (0, 0)])
    squares = sum((padded[:, r : r + 3, c : c + 3] ** 2).sum(0) / 6 for r in range(3) for c in range(3))
    expected = np.broadcast_to(np.sqrt(squares)[..., None], (3, 3, 4, 2))
    np.testing.assert_allclose(norms[model.get_layer("depthwise").kernel.path], expected, rtol=1e-5)

    squares = (into("grouped") ** 2).sum((0, 1, 2)) / 6  # of eight channels, four for each two filters
    expected = np.sqrt(np.stack([squares[:4], squares[:4], squares[4:], squares[4:]], axis=1))
    np.testing.assert_allclose(norms[model.get_layer("grouped").kernel.path][0, 0], expected, rtol=1e-5)

    squares = (into("transposed") ** 2).sum((0, 1, 2)) / 6  # each weight meets each input
    expected = np.broadcast_to(np.sqrt(squares), (2, 2, 3, 4))
    np.testing.assert_allclose(norms[model.get_layer("transposed").kernel.path], expected, rtol=1e-5)


def test_wanda_keeps_what_has_large_inputs_and_as_many_of_each_output():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.layers[0].kernel.assign([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, -8.0]])
    x = np.diag([8.0, 2.0, 1.0, 0.5]).astype("float32")  # norms 4, 1, 0.5, 0.25: scores 4 2 1.5 1 and 20 6 3.5 2
    tfprune.prune_weights(model, 0.5, Wanda(), data=x)
    assert recorded_mask(model.layers[0].kernel).all(axis=1).tolist() == [True, True, False, False]


def test_layer_without_such_norms_is_named():
    model = keras.Sequential([keras.Input((4, 2)), L.LSTM(3, name="lstm"), L.Dense(2, name="head")])
    x = np.ones((2, 4, 2))
    with pytest.raises(ValueError, match="Wanda cannot score 'lstm/kernel': there is no 'input_norm' for a LSTM"):
        tfprune.prune_weights(model, 0.5, Wanda(), data=x)
    tfprune.prune_weights(model, {model.get_layer("head"): 0.5}, Wanda(), data=x)
    assert int((~recorded_mask(model.get_layer("head").kernel)).sum()) == 3
