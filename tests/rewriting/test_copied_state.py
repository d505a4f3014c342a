"""What layers know beside their weights is in every copy of a model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.graph import analyse
from tfprune.rewriting.cloning import duplicate

L = keras.layers
WORDS = np.array(["a", "b", "c", "dd", "a", "b"])
NUMBERS = np.random.default_rng(0).normal(5.0, 2.0, size=(16, 6)).astype("float32")
STRINGS = tf.constant([["a", "c"], ["zz", "dd"]] * 8)


def adapted(layer, data):
    layer.adapt(data)
    return layer


def normalization(**options):
    return adapted(L.Normalization(**options), NUMBERS)


def looked_up(x):
    return L.Flatten()(L.Embedding(20, 4)(x))


ROWS = {
    "normalization": (normalization, NUMBERS, lambda x: x),
    "inverse": (lambda: normalization(invert=True), NUMBERS, lambda x: x),
    "wrapped": (lambda: L.TimeDistributed(normalization()), NUMBERS.reshape(8, 2, 6), L.Flatten()),
    "pipeline": (lambda: L.Pipeline([normalization(), L.Rescaling(0.5)]), NUMBERS, lambda x: x),
    "nested": (lambda: keras.Sequential([normalization()]), NUMBERS, lambda x: x),
    "discretization": (lambda: adapted(L.Discretization(num_bins=4), NUMBERS[:, 0]), NUMBERS, looked_up),
    "integers": (lambda: adapted(L.IntegerLookup(), [3, 5, 5, 9]), np.array([[3, 5], [9, 7]] * 8), looked_up),
    "strings": (lambda: adapted(L.StringLookup(), WORDS), STRINGS, looked_up),
    "words": (lambda: adapted(L.TextVectorization(output_sequence_length=3), WORDS), STRINGS[:, :1], looked_up),
    "tf-idf": (lambda: adapted(L.TextVectorization(output_mode="tf_idf"), WORDS), STRINGS[:, :1], lambda x: x),
    "hashing": (lambda: L.Hashing(7, salt=3), STRINGS, looked_up),
}
COPIES = {
    "aware": lambda model, layer: tfprune.quantize_aware(model),
    "left in float": lambda model, layer: tfprune.quantize_aware(model, exclude=[layer]),
    "stripped": lambda model, layer: tfprune.strip(tfprune.quantize_aware(model, exclude=[layer])),
    "duplicate": lambda model, layer: duplicate(model, analyse(model))[0],
}


def network(name):
    keras.utils.set_random_seed(0)
    make, x, after = ROWS[name]
    layer = make()
    inputs = keras.Input(x.shape[1:], dtype=x.dtype if isinstance(x, np.ndarray) else "string")
    return keras.Model(inputs, L.Dense(3)(L.Dense(8, "relu")(after(layer(inputs))))), layer, x


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("copy", COPIES)
def test_copies_compute_with_what_was_adapted(name, copy):
    model, layer, x = network(name)
    expected, found = np.asarray(model(x)), np.asarray(COPIES[copy](model, layer)(x))
    # Weights alone are rounded before the first training batch: each is off by a 254th of the largest at most.
    assert np.abs(found - expected).mean() < 0.02 * expected.std()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("copy", COPIES)
def test_recurrent_layers_go_on_from_their_state(copy):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    layer = L.LSTM(4, stateful=True)
    inputs = keras.Input((5, 3), batch_size=4)
    model = keras.Model(inputs, L.Dense(3)(L.Bidirectional(L.GRU(4, stateful=True))(L.RepeatVector(2)(layer(inputs)))))
    model(x)
    copied = COPIES[copy](model, layer)
    expected, found = np.asarray(model(x)), np.asarray(copied(x))
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    model.reset_states() if hasattr(model, "reset_states") else layer.reset_state()
    assert np.abs(np.asarray(model(x)) - expected).mean() > 0.02 * expected.std()


def test_random_layers_draw_what_they_would_have_drawn():
    model = keras.Sequential([keras.Input((6,)), L.Dropout(0.5, seed=1), L.Dense(3)])
    model(NUMBERS, training=True)
    copied = duplicate(model, analyse(model))[0]
    assert np.array_equal(model(NUMBERS, training=True), copied(NUMBERS, training=True))
