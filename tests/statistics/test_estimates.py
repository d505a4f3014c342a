"""What estimates are worth: against the true change of the loss when one channel goes, and against exact Hessians."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import spearmanr

from tfprune.criteria import GroupFisher, SecondOrderStructuredPruning, Taylor
from tfprune.graph import channel_groups
from tfprune.parts.channels import view_of
from tfprune.statistics import gather
from tfprune.statistics.second_order import hessian_vector_product

L = keras.layers


@pytest.fixture(scope="module")
def smooth():
    """A smooth network with two hidden layers, data, and all statistics of it."""
    keras.utils.set_random_seed(0)
    layers = [L.Dense(24, activation="tanh", name="first"), L.Dense(16, activation="gelu", name="second"), L.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    for layer in model.layers:  # channels that matter little, as to first order only small changes count
        layer.kernel.assign(0.5 * layer.kernel.numpy())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    random = np.random.default_rng(0)
    data = random.normal(size=(200, 5)).astype("float32"), random.integers(0, 3, 200)
    names = ["gradient", "gate_gradient", "gate_gradient_squared", "hessian_weights"]
    return model, data, gather(model, data, names, loss="compiled")


def views(model, found):
    groups = channel_groups(model).free
    return [view_of(group, None, found.of_group(group.name), found.of_variable) for group in groups]


def loss_of(model, data):
    losses = keras.losses.sparse_categorical_crossentropy(data[1], model(data[0]), from_logits=True)
    return float(keras.ops.mean(keras.ops.cast(losses, "float64")))


def test_taylor_tells_the_change_of_the_loss(smooth):
    model, data, found = smooth
    dense, changes = loss_of(model, data), {"first": [], "second": []}
    for reader, name in (("second", "first"), (model.layers[-1].name, "second")):
        kernel = model.get_layer(reader).kernel
        before = kernel.numpy()
        for channel in range(len(before)):
            kernel.assign(np.where(np.arange(len(before))[:, None] == channel, 0, before))
            changes[name].append(loss_of(model, data) - dense)
        kernel.assign(before)
    for view in views(model, found):
        true = np.array(changes[view.name])
        assert spearmanr(-found.channels["gate_gradient"][view.name], true).statistic > 0.97
        assert spearmanr(Taylor().score(view), np.abs(true)).statistic > 0.9


def test_second_order_is_that_of_the_exact_hessian(smooth):
    model, data, found = smooth
    variables = [variable for layer in model.layers[:2] for variable in (layer.kernel, layer.bias)]
    tensors = [variable.value for variable in variables]
    x, y = (tf.constant(each[:20]) for each in data)
    found = gather(model, (data[0][:20], data[1][:20]), ["gradient", "hessian_weights"], loss="compiled", batch_size=8)

    @tf.function(autograph=False)
    def hessian():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x), from_logits=True))
            gradient = tf.concat([tf.reshape(each, (-1,)) for each in inner.gradient(loss, tensors)], 0)
        rows = outer.jacobian(gradient, tensors)
        return gradient, tf.concat([tf.reshape(each, (gradient.shape[0], -1)) for each in rows], 1)

    gradient, exact = (each.numpy().astype("float64") for each in hessian())
    weights = np.concatenate([variable.numpy().ravel() for variable in variables])
    product = np.concatenate([found.variables["hessian_weights"][each.path].ravel() for each in variables])
    np.testing.assert_allclose(product, exact @ weights, rtol=1e-3, atol=1e-5)
    for view in views(model, found):
        scores = SecondOrderStructuredPruning().score(view)
        expected = []
        for channel in range(view.size):
            own = []
            for name in ("first", "second"):
                marks = [np.zeros(each.shape) for each in (model.get_layer(name).kernel, model.get_layer(name).bias)]
                for mark in marks:
                    mark[..., channel : channel + 1] = name == view.name
                own.extend(mark.ravel() for mark in marks)
            alone = np.concatenate(own) * weights
            expected.append(abs(alone @ gradient) + abs(alone @ exact @ weights) / 2)
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-6)


def test_fisher_is_never_less_than_the_square_of_the_mean(smooth):
    model, _, found = smooth
    for view in views(model, found):
        assert (GroupFisher().score(view) >= Taylor().score(view) ** 2).all()


def test_product_with_the_hessian_of_what_has_none():
    weights = keras.Variable([1.0, 2.0])
    assert hessian_vector_product(lambda: keras.ops.sum(3.0 * weights), [weights], [tf.ones(2)]) == [None]
    other = keras.Variable([3.0])
    products = hessian_vector_product(lambda: keras.ops.sum(weights**2), [weights, other], [tf.ones(2), tf.ones(1)])
    assert products[0].numpy().tolist() == [2.0, 2.0]
    assert products[1] is None
