"""What is recorded of the calls of layers, and what is left behind: nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.statistics.taps import tapped

L = keras.layers


def test_readers_of_one_tensor_have_gradients_of_their_own():
    inputs = keras.Input((1,))
    first, second = L.Dense(1, kernel_initializer="ones"), L.Dense(1, kernel_initializer=keras.initializers.Constant(3))
    model = keras.Model(inputs, L.Add()([first(inputs), second(inputs)]))
    with tf.GradientTape() as tape, tapped([first, second], tape.watch) as taps:
        loss = tf.reduce_sum(model(tf.ones((1, 1))))
    read = [taps.of(layer)[0].inputs[0] for layer in (first, second)]
    assert [each.numpy().item() for each in tape.gradient(loss, read)] == [1.0, 3.0]


def test_masks_come_along():
    class Counting(L.Layer):
        supports_masking = True

        def call(self, x):
            # Reads the private _keras_mask of a tensor.
            return keras.ops.sum(keras.ops.cast(x._keras_mask, "float32"), axis=1)

    counting = Counting()
    embedded = L.Embedding(3, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    with tapped([counting], lambda tensor: None):
        assert counting(embedded).numpy().tolist() == [2.0]


def test_nothing_stays_when_a_call_fails():
    layer = L.Dense(2)
    layer(np.ones((1, 3)))
    with pytest.raises(ValueError, match="incompatible"), tapped([layer], lambda tensor: None):
        layer(np.ones((1, 4)))
    assert "call" not in vars(layer)
