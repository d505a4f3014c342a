"""Centroids and their gradients, by hand and by definition."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.clustering.codebook import Codebook


def made_and_gradients(codebook, weights, upstream):
    weights = tf.Variable(weights)
    with tf.GradientTape() as tape:
        made = codebook(weights)
        loss = tf.reduce_sum(made * upstream)
    return made.numpy(), [each.numpy() for each in tape.gradient(loss, [weights, codebook.centroids.value])]


def test_the_gradient_of_a_centroid_is_the_sum_of_its_members_by_hand():
    codebook = Codebook(3)
    codebook.centroids.assign([[1.0, -1.0, 0.25]])  # in any order
    weights = np.array([[0.9, -3.0], [0.2, 0.0], [2.0, -0.7]], "float32")
    upstream = np.array([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]], "float32")
    made, (passed, sums) = made_and_gradients(codebook, weights, upstream)
    assert made.tolist() == [[1.0, -1.0], [0.25, 0.25], [1.0, -1.0]]
    np.testing.assert_array_equal(passed, upstream)
    assert sums.tolist() == [[17.0, 34.0, 12.0]]


def test_zeros_stay_and_get_and_give_no_gradient():
    codebook = Codebook(2, keep_zeros=True)
    codebook.centroids.assign([[0.1, 5.0]])
    weights = np.array([0.0, -0.0, 0.2, 4.0], "float32")
    made, (passed, sums) = made_and_gradients(codebook, weights, np.array([1.0, 2.0, 3.0, 4.0], "float32"))
    np.testing.assert_array_equal(made, np.array([0.0, 0.0, 0.1, 5.0], "float32"))
    assert np.signbit(made).tolist() == [False, True, False, False]
    assert passed.tolist() == [0.0, 0.0, 3.0, 4.0]
    assert sums.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("axes", [(), (-1,), (-2,), (-2, -1), (1, -1)])
def test_each_channel_follows_its_own_centroids_by_definition(axes):
    random = np.random.default_rng(0)
    weights = random.normal(size=(3, 2, 4, 5)).astype("float32")
    upstream = random.normal(size=weights.shape).astype("float32")
    first = [axis % 4 for axis in axes]
    channels = int(np.prod([weights.shape[axis] for axis in first], dtype=int))
    codebook = Codebook(3, channels, axes)
    centroids = random.normal(size=(channels, 3)).astype("float32")
    codebook.centroids.assign(centroids)
    made, (passed, sums) = made_and_gradients(codebook, weights, upstream)
    expected_sums, expected = np.zeros_like(centroids), np.zeros_like(weights)
    for index in np.ndindex(*weights.shape):
        channel = 0
        for axis in first:
            channel = channel * weights.shape[axis] + index[axis]
        member = np.abs(weights[index] - centroids[channel]).argmin()
        expected[index] = centroids[channel, member]
        expected_sums[channel, member] += upstream[index]
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(passed, upstream)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-5, atol=1e-5)


def test_one_value_is_the_value_of_all():
    codebook = Codebook(1)
    codebook.centroids.assign([[0.5]])
    assert codebook(keras.ops.array([3.0, -3.0])).numpy().tolist() == [0.5, 0.5]
