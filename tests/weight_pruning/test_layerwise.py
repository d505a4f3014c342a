"""Pruning that changes the weights that stay, in whole networks."""

import keras
import numpy as np
import pytest
from networks import randomize, same, weights_of

import tfprune
from tfprune.criteria import Magnitude, SparseGPT
from tfprune.data import Reader, inputs_of
from tfprune.granularity import Block, NofM
from tfprune.masking import recorded_mask
from tfprune.statistics.input_grams import InputGrams, rows_of

L = keras.layers


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((6, 6, 4))
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv")(inputs)
    x = L.EinsumDense("abcd,def->abcef", (3, 3, 2, 4), activation="relu", name="einsum")(x)
    x = L.GlobalAveragePooling2D()(L.Reshape((3, 3, 8))(x))
    return randomize(keras.Model(inputs, L.Dense(4, name="dense")(x)))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(200, 6, 6, 4)).astype("float32")


def copy_of(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def error(model, dense, x):
    return float(np.mean((np.asarray(model(x)) - np.asarray(dense(x))) ** 2))


@pytest.mark.parametrize(("granularity", "sparsity"), [(None, 0.6), (NofM(2, 4), 0.5)])
def test_loses_less_than_magnitude_at_the_same_counts(network, x, granularity, sparsity):
    errors, counts = [], []
    for criterion in (SparseGPT(block_size=8), Magnitude()):
        model = copy_of(network)
        tfprune.prune_weights(model, sparsity, criterion, data=x, granularity=granularity)
        errors.append(error(model, network, x))
        counts.append([int((~recorded_mask(model.get_layer(n).kernel)).sum()) for n in ("conv", "einsum", "dense")])
        assert same(model.get_layer("conv").bias.numpy()[None], network.get_layer("conv").bias.numpy()[None])
    assert counts[0] == counts[1]
    assert errors[0] < 0.5 * errors[1]


def test_pattern_holds_in_every_group_and_pruned_weights_stay_so(network, x):
    model = copy_of(network)
    conv = model.get_layer("conv")
    tfprune.prune_weights(model, {conv: 0.25})
    first = recorded_mask(conv.kernel)
    tfprune.prune_weights(model, 0.5, SparseGPT(), data=x, granularity=NofM(2, 4))
    mask = recorded_mask(conv.kernel)
    assert not mask[~first].any()
    assert (mask.sum(axis=2) <= 2).all()  # of four input channels, at each place of the window


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv1D(3, 2, strides=2),
        L.Conv1D(3, 3, padding="causal", dilation_rate=2),
        L.Conv1D(3, 3, padding="same"),
        L.Dense(3),
        L.EinsumDense("abc,cbd->ad", (3,)),
    ],
    ids=lambda layer: layer.name,
)
def test_rows_times_the_kernel_are_the_outputs(layer):
    inputs = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    outputs = np.asarray(layer(inputs))
    kernel = layer.kernel.numpy()
    if isinstance(layer, L.EinsumDense):
        kernel = kernel.reshape(20, 3)
    rows = rows_of(layer)(keras.ops.convert_to_tensor(inputs)).numpy()
    np.testing.assert_allclose(rows @ kernel.reshape(-1, 3), outputs.reshape(-1, 3), atol=1e-5)


def test_gram_is_the_product_of_the_rows_over_samples(network, x):
    layers = [network.get_layer(name) for name in ("conv", "dense")]
    before = weights_of(network)
    measure = InputGrams(network, layers, Reader(x, inputs_of(network), batch_size=64))
    features = np.asarray(keras.Model(network.input, network.get_layer("dense").input)(x))
    np.testing.assert_allclose(measure(1), features.T @ features / 200, rtol=1e-4)
    np.testing.assert_allclose(np.trace(measure(0)), sum_of_windows(x) / 200, rtol=1e-4)
    assert same(before, weights_of(network))


def sum_of_windows(x):
    """Of 3 x 3 windows at stride 2 over 6 x 6 pixels with padding at the far end."""
    padded = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    return sum((padded[:, r : r + 3, c : c + 3] ** 2).sum() for r in (0, 2, 4) for c in (0, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": None}, "SparseGPT needs data, and none was given. Pass inputs: data=x"),
        ({"granularity": NofM(1, 4)}, r"NofM\(n=1, m=4\) means a sparsity of 0\.75. Received: 0\.5"),
        ({"rounds": 2}, "SparseGPT prunes in one round"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(network, x, arguments, message):
    before = weights_of(network)
    with pytest.raises(ValueError, match=message):
        tfprune.prune_weights(network, 0.5, SparseGPT(), **{"data": x, **arguments})
    assert same(before, weights_of(network))


def test_layers_and_patterns_that_cannot_be_pruned_so_are_named(x):
    model = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2DTranspose(2, 2, name="up"), L.Flatten(), L.Dense(2)])
    with pytest.raises(ValueError, match=r"SparseGPT cannot prune 'up'.*this is a Conv2DTranspose"):
        tfprune.prune_weights(model, 0.5, SparseGPT(), data=x)
    with pytest.raises(ValueError, match="SparseGPT prunes single weights and NofM patterns"):
        tfprune.prune_weights(model, {model.layers[-1]: 0.5}, SparseGPT(), data=x, granularity=Block((2, 1)))
