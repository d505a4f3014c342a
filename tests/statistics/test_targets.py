"""The loss of each sample alone, by hand, and what labels are drawn from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.statistics.answers import answers_of
from tfprune.statistics.targets import CompiledLoss, OwnLoss, SampledLabels, as_target

L = keras.layers
X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(5, 2)).astype("float32")
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 3.0], "float32")


def linear(**options):
    return keras.Sequential([keras.Input((3,)), L.Dense(2, name="answer", **options)])


def loss_of(model, y, sample_weight=None, x=X, target=None):
    target = target or CompiledLoss(model)
    run = tf.function(lambda x, y, w: target.loss(x, y, model(x, training=False), w), autograph=False)
    return float(run(x, y, sample_weight))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean", "sum", "none"])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_compiled_loss_is_the_sum_over_samples(reduction, weights):
    penalties = {"kernel_regularizer": "l2", "activity_regularizer": "l2"}
    model = linear(**penalties if reduction != "none" else {})  # with both, Keras cannot add up
    model.compile("sgd", keras.losses.MeanSquaredError(reduction=reduction))
    squares = ((model(X).numpy() - Y) ** 2).sum(1) * 0.5  # the error is the mean over the two numbers already
    expected = (squares * (1 if weights is None else weights)).sum()
    assert loss_of(model, Y, weights) == pytest.approx(expected, rel=1e-5)


def test_weight_of_a_sample_that_has_no_effect_alone_is_refused():
    model = linear()
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    assert loss_of(model, Y) == pytest.approx(((model(X).numpy() - Y) ** 2).mean(1).sum(), rel=1e-5)
    with pytest.raises(ValueError, match="reduction='mean_with_sample_weight'"):
        loss_of(model, Y, WEIGHTS)


def test_several_outputs_with_losses_and_weights_of_their_own():
    inputs = keras.Input((3,))
    outputs = {
        "first": L.Dense(2, name="first")(inputs),
        "second": L.Dense(1, activation="sigmoid", name="second")(inputs),
    }
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"first": "mae", "second": "binary_crossentropy"}, loss_weights={"first": 2.0, "second": 0.5})
    labels = {"first": Y, "second": (Y[:, :1] > 0).astype("float32")}
    answers = {name: each.numpy() for name, each in model(X).items()}
    likely = np.where(labels["second"] > 0, answers["second"], 1 - answers["second"])
    expected = 2 * np.abs(answers["first"] - Y).mean(1).sum() - 0.5 * np.log(likely).sum()
    assert loss_of(model, labels) == pytest.approx(expected, rel=1e-4)


def test_loss_of_the_models_own():
    class Autoencoder(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return keras.ops.mean(keras.ops.square(x - y_pred))

    inputs = keras.Input((3,))
    model = Autoencoder(inputs, L.Dense(3)(inputs))
    model.compile("sgd")
    expected = ((model(X).numpy() - X) ** 2).mean(1).sum()
    assert loss_of(model, Y) == pytest.approx(expected, rel=1e-5)


def test_masked_steps_do_not_count():
    words = np.array([[1, 2, 0, 0], [3, 1, 2, 0]])
    labels = np.array([[1, 0, 1, 1], [0, 1, 1, 0]])
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, L.Dense(2, activation="softmax")(L.Embedding(5, 3, mask_zero=True)(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    losses = -np.log(np.take_along_axis(model(words).numpy(), labels[..., None], -1)[..., 0])
    expected = losses[0, :2].mean() + losses[1, :3].mean()
    assert loss_of(model, labels, x=words) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_an_answer_that_is_sure_and_wrong():
    model = keras.Sequential([keras.Input((1,)), L.Dense(2, activation="softmax", kernel_initializer="ones")])
    model.get_layer(index=0).kernel.assign([[50.0, -50.0]])
    model.compile("sgd", "sparse_categorical_crossentropy")
    target = CompiledLoss(model)

    @tf.function(autograph=False)
    def gradient(x, y):
        with tf.GradientTape() as tape:
            loss = target.loss(x, y, model(x), None)
        return tape.gradient(loss, model.trainable_variables[0].value)

    assert gradient(tf.ones((1, 1)), tf.ones((1,))).numpy().tolist() == [[1.0, -1.0]]


def test_own_loss_sees_one_sample_at_a_time():
    model = linear()
    squares = ((model(X).numpy() - Y) ** 2).mean(1)
    for function in (keras.losses.MeanSquaredError(), keras.losses.mean_squared_error, lambda y, a: (y - a) ** 2):
        assert loss_of(model, Y, target=OwnLoss(function)) == pytest.approx(squares.sum(), rel=1e-5)
    target = OwnLoss(keras.losses.mean_squared_error)
    assert loss_of(model, Y, WEIGHTS[:, None], target=target) == pytest.approx((squares * WEIGHTS).sum(), rel=1e-5)
    with pytest.raises(ValueError, match=r"needs loss='compiled'. Received weights of the shapes \[\(5, 2\)\]"):
        loss_of(model, Y, Y, target=target)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("compiled", ValueError, r"has no loss. Compile it: model.compile\(loss=...\)"),
        ("fisher", TypeError, "loss must be 'compiled', 'sampled' or a function"),
        (3, TypeError, "loss must be 'compiled', 'sampled' or a function"),
    ],
)
def test_what_is_no_loss_is_refused(loss, error, message):
    with pytest.raises(error, match=message):
        as_target(loss, linear(), 1.0, 0)


def test_temperature_is_above_zero():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        as_target("sampled", linear(), 0.0, 0)


def kinds(model, *inputs):
    found = []
    tf.function(lambda *x: found.extend(answers_of(model, model(*x))), autograph=False)(*inputs)
    return [(each.kind, tuple(each.values.shape[1:])) for each in found]


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.answer = L.Dense(4)

    def call(self, x):
        return {"first": keras.ops.softmax(self.answer(x)), "second": keras.ops.sigmoid(x), "third": x * 2}


def test_what_an_output_comes_out_of():
    logits = keras.Sequential([keras.Input((3,)), L.Dense(4)])
    logits.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pair = keras.Input((3,))
    binary = keras.Model(pair, [L.Dense(1)(pair), L.Dense(2)(pair)])
    binary.compile("sgd", [keras.losses.BinaryCrossentropy(from_logits=True), "mse"])
    passed_on = [L.Dense(6, activation="softmax"), L.Reshape((2, 3)), L.Activation("linear")]
    hidden = keras.Sequential([keras.Input((3,)), *passed_on])
    steps = keras.Sequential([keras.Input((2, 3)), L.TimeDistributed(L.Dense(4, activation="softmax"))])
    softmax = L.Activation("softmax", dtype="mixed_float16")
    half = keras.Sequential([keras.Input((3,)), L.Dense(4), softmax, L.Activation("linear", dtype="float32")])
    assert kinds(logits, X) == [("softmax", (4,))]
    assert kinds(binary, X) == [("sigmoid", (1,)), ("linear", (2,))]
    assert kinds(hidden, X) == [("softmax", (6,))]
    assert kinds(steps, np.ones((5, 2, 3), "float32")) == [("softmax", (4,))] * 2
    assert kinds(half, X) == [("softmax", (4,))]
    subclassed = Subclassed()
    subclassed(X)
    assert kinds(subclassed, X) == [("softmax", (4,)), ("sigmoid", (3,)), ("linear", (3,))]


def test_labels_are_drawn_from_the_answers():
    """The mean of the sampled loss is the cross entropy of what is drawn from, and what is answered."""
    logits = np.array([2.0, 0.0, -1.0])
    model = keras.Sequential([keras.Input((1,)), L.Dense(3, activation="softmax")])
    model.set_weights([np.zeros((1, 3)), logits])
    x = np.zeros((4000, 1), "float32")
    for temperature in (1.0, 4.0):
        drawn = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        expected = -(drawn * (logits - np.log(np.exp(logits).sum()))).sum()
        found = loss_of(model, None, x=x, target=SampledLabels(model, temperature)) / 4000
        assert found == pytest.approx(expected, rel=0.05)
    weights = np.repeat([[1.0], [0.0]], 2000, axis=0).astype("float32")
    found = loss_of(model, None, weights, x=x, target=SampledLabels(model, 4.0)) / 2000
    assert found == pytest.approx(expected, rel=0.05)
