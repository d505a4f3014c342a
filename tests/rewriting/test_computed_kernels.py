"""A wrapper that makes kernels: all else of the layer goes on as if it were not there."""

import keras
import numpy as np
import pytest

from tfprune.rewriting.computed_kernels import ComputedKernels

L = keras.layers


def doubled(layer, *shape):
    """A layer wrapped so that its first kernel counts twice, and one that holds the doubled kernel."""
    layer.build((None, *shape))
    twin = type(layer).from_config(layer.get_config())
    twin.build((None, *shape))
    twin.set_weights([2 * layer.get_weights()[0], *layer.get_weights()[1:]])
    return ComputedKernels(layer, [0], [L.Rescaling(2.0)], name=layer.name), twin


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Dense(3, activation="relu"), (4,)),
        (L.Conv2D(3, 2, strides=2, padding="same"), (5, 5, 2)),
        (L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), (5, 4)),
        (L.LSTM(3, return_sequences=True), (5, 4)),
        (L.TimeDistributed(L.Dense(3)), (5, 4)),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, L.Layer) else "",
)
def test_it_computes_with_what_is_made(layer, shape):
    wrapped, twin = doubled(layer, *shape)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(wrapped(x), twin(x), rtol=1e-6)
    tensor = keras.KerasTensor((None, *shape))
    assert wrapped.compute_output_spec(tensor).shape == twin.compute_output_spec(tensor).shape


def test_a_layer_of_several_inputs_is_called_as_it_is():
    layer = L.MultiHeadAttention(2, 3)
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    y = x[:, :3]
    expected = layer(x, value=y)
    wrapped = ComputedKernels(layer, [0], [L.Rescaling(1.0)])
    np.testing.assert_allclose(wrapped(x, value=y), expected, rtol=1e-6)
    inputs = keras.Input((5, 4)), keras.Input((3, 4))
    model = keras.Model(inputs, wrapped(inputs[0], value=inputs[1]))
    np.testing.assert_allclose(model([x, y]), expected, rtol=1e-6)


def test_masks_losses_and_random_states_go_on():
    table = ComputedKernels(L.Embedding(5, 3, mask_zero=True), [0], [L.Rescaling(2.0)])
    np.testing.assert_array_equal(table.compute_mask(np.array([[1, 0]]), None), [[True, False]])
    layer, _ = doubled(L.Dense(3, activity_regularizer=keras.regularizers.L1(1.0), kernel_regularizer="l2"), 4)
    x = np.ones((2, 4), "float32")
    outputs = layer(x)
    own = keras.regularizers.L2()(layer.layer.kernel)
    assert sorted(map(float, layer.losses)) == pytest.approx(sorted([float(np.abs(outputs).sum()) / 2, float(own)]))
    cell, _ = doubled(L.SimpleRNN(40, dropout=0.5, seed=1), 2, 40)
    sequence = np.ones((1, 2, 40), "float32")
    first, second = (np.array(cell(sequence, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3  # another mask


def test_moving_averages_move():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization(momentum=0.5)])
    wrapped = ComputedKernels(inner, [0], [L.Rescaling(2.0)])
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    mean = (2 * x @ inner.layers[0].kernel.numpy()).mean(axis=0)
    wrapped(x, training=True)
    np.testing.assert_allclose(inner.layers[1].moving_mean, mean / 2, rtol=1e-5, atol=1e-6)


def test_it_loads_as_it_was_saved(tmp_path):
    wrapped, _ = doubled(L.Conv1D(3, 2), 5, 4)
    model = keras.Sequential([keras.Input((5, 4)), wrapped, L.Flatten()])
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))
