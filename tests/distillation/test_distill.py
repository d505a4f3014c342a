"""The loss by hand, the teacher untouched, and a student that trains as it would alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune

L = keras.layers
CATEGORICAL, BINARY = keras.losses.SparseCategoricalCrossentropy, keras.losses.BinaryCrossentropy
X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 16)


def net(activation="softmax", units=3, name="student", width=5):
    return keras.Sequential(
        [
            keras.Input((4,)),
            *(L.Dense(width, "relu"), L.BatchNormalization(), L.Dropout(0.5)),
            L.Dense(
                units,
                activation,
                kernel_initializer=keras.initializers.RandomNormal(stddev=2.0, seed=len(name)),
                name="head",
            ),
        ],
        name=name,
    )


def compiled(model, loss=None, **kwargs):
    linear = model.layers[-1].activation is keras.activations.linear
    model.compile(keras.optimizers.SGD(0.1), loss or CATEGORICAL(from_logits=linear), **kwargs)
    return model


def log_softmax(values):
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def outputs(model):
    return np.asarray(model(X, training=False), "float64")


def logits(model):
    head = model.layers[-1]
    return np.asarray(keras.Model(model.inputs[0], head.input)(X, training=False), "float64") @ head.kernel + head.bias


def step_loss(model, y, sample_weight=None, eagerly=False):
    """The loss of a training step, with the student at inference so that nothing is random."""

    def compute():
        return model.compute_loss(X, y, model.student(X, training=False), sample_weight, True)

    return float(compute() if eagerly else tf.function(compute, autograph=False)())


@pytest.mark.sampled(3)
@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("teacher", ["softmax", None])
@pytest.mark.parametrize("student", ["softmax", None])
def test_loss_is_the_textbooks_however_the_two_end(student, teacher, eagerly):
    student, teacher = compiled(net(student)), compiled(net(teacher, name="teacher", width=7))
    model = tfprune.distill(student, teacher, temperature=3, weight=0.7)
    wanted, answer = log_softmax(logits(teacher) / 3), log_softmax(logits(student) / 3)
    divergence = (np.exp(wanted) * (wanted - answer)).sum(-1)
    entropy = -log_softmax(logits(student))[np.arange(16), Y]
    assert step_loss(model, Y, eagerly=eagerly) == pytest.approx((0.7 * 9 * divergence + 0.3 * entropy).mean(), 1e-5)
    assert step_loss(model, None, eagerly=eagerly) == pytest.approx(9 * divergence.mean(), 1e-5)
    weights = np.linspace(0, 1, 16)
    weighted = ((0.7 * 9 * divergence + 0.3 * entropy) * weights).mean()
    assert step_loss(model, Y, weights, eagerly) == pytest.approx(weighted, 1e-5)


@pytest.mark.parametrize("student", ["sigmoid", None])
def test_loss_of_a_sigmoid(student):
    teacher = net("sigmoid", 2, "teacher")
    student = compiled(net(student, 2), BINARY(from_logits=student is None))
    model = tfprune.distill(student, teacher, temperature=2, weight=1)
    wanted, answer = (1 / (1 + np.exp(-logits(each) / 2)) for each in (teacher, student))
    divergence = wanted * np.log(wanted / answer) + (1 - wanted) * np.log((1 - wanted) / (1 - answer))
    assert step_loss(model, np.zeros((16, 2))) == pytest.approx(4 * divergence.mean(), 1e-5)


def test_penalties_count_in_full():
    student, teacher = net(), net(name="teacher")
    student.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
    model = tfprune.distill(compiled(student), teacher, weight=0.7)
    penalty = 0.1 * float((student.layers[0].kernel.numpy() ** 2).sum())
    with_it = [step_loss(model, y) for y in (Y, None)]
    student.layers[0].kernel.regularizer = None
    assert with_it == pytest.approx([step_loss(model, y) + penalty for y in (Y, None)])


def test_numbers_learn_by_the_compiled_loss_or_one_that_is_given():
    teacher, student = net(None, name="teacher"), compiled(net(None), "mae")
    target = outputs(teacher) - outputs(student)
    y = np.zeros((16, 3))
    assert step_loss(tfprune.distill(student, teacher, weight=1), y) == pytest.approx(np.abs(target).mean())
    model = tfprune.distill(student, teacher, loss=lambda wanted, made: (wanted - made) ** 2, weight=1)
    assert step_loss(model, y) == pytest.approx((target**2).mean())


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    student, teacher = compiled(net(), metrics=["accuracy"]), net(name="teacher")
    before = [variable.numpy() for variable in teacher.variables]
    weights = student.get_weights()
    model = tfprune.distill(student, teacher)
    history = model.fit(X, Y, verbose=0)
    return model, student, teacher, before, weights, history


def test_teacher_stays_bit_for_bit_and_student_learns(fitted):
    _, student, teacher, before, weights, history = fitted
    assert len(before) == 9  # with the statistics, and the seed of Dropout
    for variable, value in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert all((old != new).any() for old, new in zip(weights, student.get_weights(), strict=True))
    assert set(history.history) == {"accuracy", "loss"}
    assert teacher.trainable
    assert all(layer.trainable for layer in teacher.layers)


def test_model_is_its_student(fitted):
    model, student, *_ = fitted
    for kind in ("trainable_weights", "non_trainable_weights", "variables"):
        assert list(map(id, getattr(model, kind))) == list(map(id, getattr(student, kind)))
    assert model.evaluate(X, Y, verbose=0) == student.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(model.predict(X, verbose=0), student.predict(X, verbose=0))
    assert tfprune.strip(model) is student
    assert student.optimizer is not model.optimizer


def test_data_without_labels_train(fitted):
    model, student, *_ = fitted
    before = student.get_weights()
    assert set(model.fit(X, verbose=0, validation_data=(X, Y)).history) == {"loss", "val_loss", "val_accuracy"}
    assert any((old != new).any() for old, new in zip(before, student.get_weights(), strict=True))


def test_file_holds_the_student_alone(fitted, tmp_path):
    model = fitted[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert len(loaded.variables) == len(model.variables)
    for old, new in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    with pytest.raises(ValueError, match="has no teacher"):
        loaded.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("student", "teacher", "settings", "message"),
    [
        (net, lambda: net(units=4, name="teacher"), {}, "shape .*3.*4"),
        (net, lambda: net("sigmoid", name="teacher"), {}, "one comes out of a softmax, the other out of a sigmoid"),
        (net, net, {"loss": "sigmoid"}, "comes out of a softmax"),
        (net, net, {"loss": ["mse", "mse"]}, "2 items.*1 output"),
        (net, net, {"loss": {"tail": "mse"}}, "keys .*tail.*head"),
        (net, net, {"temperature": 0}, "temperature must be above 0"),
        (net, net, {"temperature": -1}, "temperature must be"),
        (net, net, {"weight": 1.5}, r"in \[0, 1\]"),
    ],
    ids=["shapes", "kinds", "loss", "number", "names", "temperature", "negative", "weight"],
)
def test_what_does_not_fit_is_refused_before_training(student, teacher, settings, message):
    with pytest.raises(ValueError, match=message):
        tfprune.distill(compiled(student()), teacher(), **settings)


def test_outputs_of_which_nothing_tells_are_refused_or_told():
    with pytest.raises(ValueError, match="Nothing tells what the output 'head' is"):
        tfprune.distill(compiled(net(None), "poisson"), net(None, name="teacher"))
    with pytest.warns(UserWarning, match="counts as the logits of a softmax"):
        tfprune.distill(compiled(net()), net(None, name="teacher"))
    model = tfprune.distill(compiled(net()), net(None, name="teacher"), loss="softmax")
    assert step_loss(model, None) > 0


def test_models_that_cannot_be_a_pair_are_refused():
    model = compiled(net())
    with pytest.raises(ValueError, match="shares weights with the student"):
        tfprune.distill(model, model)
    with pytest.raises(ValueError, match="distilled already"):
        tfprune.distill(tfprune.distill(model, net(name="teacher")), net(name="teacher"))
    with pytest.raises(TypeError, match="Expected a Keras 3 model"):
        tfprune.distill(model, "teacher")
    with pytest.raises(ValueError, match="nothing to take off"):
        tfprune.strip(model)

    class Own(keras.Sequential):
        def train_step(self, data):
            return {}

    with pytest.raises(ValueError, match="has its own train_step"):
        tfprune.distill(Own([keras.Input((4,)), L.Dense(3)]), model)
    other = keras.Sequential([keras.Input((5,)), L.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="cannot be called with the inputs of the student"):
        tfprune.distill(model, other)
