"""Scores that data gives single weights, against finite differences, the whole Hessian, and closed forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import same, weights_of

import tfprune
from tfprune.criteria import SNIP, GraSP, OptimalBrainDamage
from tfprune.distributions import global_
from tfprune.granularity import Unstructured
from tfprune.masking import recorded_mask
from tfprune.parts.weight_choice import Choice
from tfprune.weight_pruning.measuring import measure_for
from tfprune.weight_pruning.one_shot import WeightPruning

L = keras.layers


def network(logits):
    """A small smooth network, as probabilities or as logits."""
    keras.utils.set_random_seed(0)
    layers = [L.Dense(4, "tanh"), L.Dense(3, None if logits else "softmax")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=logits))
    model.optimizer.build(model.trainable_variables)
    return model


def scores(model, criterion, data):
    choice = Choice.of(model, Unstructured(), None, None)
    measure = measure_for(criterion, model, choice.kernels, data, 1)
    return list(WeightPruning(model, choice, 0.5, criterion, global_, measure).scores().values())


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(1)
    return random.normal(size=(12, 3)).astype("float32"), random.integers(0, 3, 12)


def loss_of(flat, shapes, data, temperature=1.0):
    """The loss of the small network from all its weights as one vector, in float64."""
    parts, start = [], 0
    for shape in shapes:
        parts.append(tf.reshape(flat[start : start + int(np.prod(shape))], shape))
        start += int(np.prod(shape))
    logits = (tf.tanh(data[0].astype(float) @ parts[0] + parts[1]) @ parts[2] + parts[3]) / temperature
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(data[1], logits))


def flat_weights(model):
    arrays = [weight.astype(np.float64) for weight in weights_of(model)]
    return np.concatenate([array.ravel() for array in arrays]), [array.shape for array in arrays]


def kernels_of(flat, shapes):
    places = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    parts = [part.reshape(shape) for part, shape in zip(np.split(flat, places), shapes, strict=True)]
    return [part for part in parts if part.ndim == 2]


def test_snip_is_the_change_of_the_loss_by_finite_differences_and_sums_to_one(data):
    model = network(logits=True)
    flat, shapes = flat_weights(model)
    before, slots = weights_of(model), [variable.numpy() for variable in model.optimizer.variables]
    found = scores(model, SNIP(), data)
    assert same(before, weights_of(model))
    assert same(slots, [variable.numpy() for variable in model.optimizer.variables])

    changes = np.zeros(len(flat))
    for place, weight in enumerate(flat):  # the derivative by c of the loss where the weight is c w, at c = 1
        ends = [flat + sign * 1e-5 * weight * (np.arange(len(flat)) == place) for sign in (1, -1)]
        changes[place] = (loss_of(ends[0], shapes, data) - loss_of(ends[1], shapes, data)) / 2e-5
    expected = [np.abs(part) for part in kernels_of(changes, shapes)]
    total = sum(part.sum() for part in expected)
    for score, part in zip(found, expected, strict=True):
        np.testing.assert_allclose(score, part / total, rtol=1e-3, atol=1e-7)
    assert sum(score.sum() for score in found) == pytest.approx(1, abs=1e-12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("logits", [True, False])
def test_grasp_is_the_product_of_the_whole_hessian_with_the_gradient(data, logits):
    model = network(logits)
    flat, shapes = flat_weights(model)
    weights = tf.constant(flat)
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            loss = loss_of(weights, shapes, data, temperature=3.0)
        gradient = inner.gradient(loss, weights)
    hessian = outer.jacobian(gradient, weights, experimental_use_pfor=False).numpy()
    expected = kernels_of(flat * (hessian @ gradient.numpy()), shapes)
    scale = max(np.abs(part).max() for part in expected)
    for score, part in zip(scores(model, GraSP(temperature=3.0), data), expected, strict=True):
        np.testing.assert_allclose(score, part, rtol=1e-3, atol=1e-5 * scale)
    # What raises -w (Hg) the most goes first.
    tfprune.prune_weights(model, 0.25, GraSP(temperature=3.0), data=data)
    gone = np.concatenate([~recorded_mask(layer.kernel).ravel() for layer in model.layers])
    harm = np.concatenate([-part.ravel() for part in expected])
    assert gone.sum() == 24 // 4
    assert harm[gone].min() > harm[~gone].max()


def test_optimal_brain_damage_where_fisher_information_is_the_hessian():
    """Logistic regression, and labels as often as it says: the Hessian's diagonal is P(x) p (1 - p)."""
    p = np.array([[0.25, 0.25, 0.5], [0.5, 0.125, 0.375]])
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, use_bias=False, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.layers[0].kernel.assign(np.log(p))
    x = np.eye(2, dtype="float32")[[0] * 8 + [1] * 8]
    y = np.array([0, 0, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 1, 2, 2, 2])
    (found,) = scores(model, OptimalBrainDamage(loss="compiled"), (x, y))
    np.testing.assert_allclose(found, np.log(p) ** 2 * (0.5 * p * (1 - p)) / 2, rtol=1e-5)
    (sampled,) = scores(model, OptimalBrainDamage(), np.tile(x, (64, 1)))  # no labels: drawn from the model
    np.testing.assert_allclose(sampled, found, rtol=0.25)
