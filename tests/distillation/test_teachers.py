"""Hints, moving averages and files as teachers, and outputs of several kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfprune
from tfprune.parts.kernels import kernels
from tfprune.runtime import TFLiteModel

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 8)


def net(width, name, dtype=None):
    inputs = keras.Input((4, 4, 2))
    hidden = L.ReLU(name="hidden", dtype=dtype)(L.Conv2D(width, 3, padding="same", name="conv", dtype=dtype)(inputs))
    pooled = L.GlobalAveragePooling2D(name="pooled", dtype=dtype)(hidden)
    return keras.Model(inputs, L.Dense(3, "softmax", name="classes", dtype=dtype)(pooled), name=name)


def student(width=3, **kwargs):
    model = net(width, "student", kwargs.pop("dtype", None))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **kwargs)
    return model


def loss_of(model, x):
    """The loss without labels, with the student at inference."""

    def compute():
        return model.compute_loss(x, None, model.student(x, training=False))

    return float(tf.function(compute, autograph=False)())


def features(model, name):
    return np.asarray(keras.Model(model.inputs[0], model.get_layer(name).output)(IMAGES))


def test_hints_are_mean_squares_behind_a_projection():
    own, teacher = student(), net(5, "teacher")
    pairs = [(own.get_layer(name), teacher.get_layer(name)) for name in ("hidden", "classes")]
    with_hints = tfprune.distill(own, teacher, features=pairs, feature_weight=2.0)
    kernel, bias = with_hints.projections.get_weights()  # of the first pair: the second has one width
    bias += 0.5
    with_hints.projections.set_weights([kernel, bias])
    squares = np.mean((features(own, "hidden") @ kernel + bias - features(teacher, "hidden")) ** 2)
    squares += np.mean((features(own, "classes") - features(teacher, "classes")) ** 2)
    without = loss_of(tfprune.distill(own, teacher), IMAGES)
    assert loss_of(with_hints, IMAGES) == pytest.approx(without + 2 * squares, 1e-5)


@pytest.fixture(scope="module")
def hinted():
    keras.utils.set_random_seed(0)
    own, teacher = student(), net(5, "teacher")
    model = tfprune.distill(own, teacher, features=[(own.get_layer("hidden"), teacher.get_layer("hidden"))])
    before = [*model.projections.get_weights(), *teacher.get_weights()]
    model.fit(IMAGES, Y, verbose=0)
    return model, own, before, [*model.projections.get_weights(), *teacher.get_weights()]


def test_projections_learn_and_stay_out_of_the_student(hinted):
    model, own, before, after = hinted
    changed = [bool((old != new).any()) for old, new in zip(before, after, strict=True)]
    assert changed == [True, True, False, False, False, False]
    assert len(model.weights) == len(own.weights) + 2
    assert [kernel.name for kernel in kernels(model)] == ["student/conv", "student/classes"]
    assert [group.name for group in tfprune.channel_groups(model).free] == ["conv"]


def test_projections_are_in_the_file(hinted, tmp_path):
    model = hinted[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_hints_that_do_not_fit_are_refused():
    own, teacher = student(), net(5, "teacher")
    conv, other = own.get_layer("conv"), teacher.get_layer("conv")
    for pairs, error, message in (
        ([(other, conv)], ValueError, "no layer of the student"),
        ([(conv, conv)], ValueError, "no layer of the teacher"),
        ([("conv", other)], TypeError, "pairs of layer objects"),
        ([conv], ValueError, "pairs of layer objects"),
        (conv, ValueError, "pairs of layer objects"),
        ([(conv, teacher.get_layer("pooled"))], ValueError, "same resolution"),
    ):
        with pytest.raises(error, match=message):
            tfprune.distill(own, teacher, features=pairs)


@pytest.mark.slow
def test_moving_average_follows_and_teaches(tmp_path):
    own = student()
    model = tfprune.distill(own, tfprune.MovingAverage(0.75), weight=0.5)
    start = own.get_weights()
    model.fit(IMAGES, Y, verbose=0)  # one step: the average is still what the student was
    first = own.get_weights()
    for average, weight in zip(model.averages.get_weights(), start, strict=True):
        np.testing.assert_array_equal(average, weight)
    model.fit(IMAGES, Y, verbose=0)
    for average, old, new in zip(model.averages.get_weights(), start, first, strict=True):
        np.testing.assert_allclose(average, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-7)
    teacher = net(3, "teacher")
    teacher.set_weights(model.averages.get_weights())
    model.averages.follow = lambda model: None
    assert loss_of(model, IMAGES) == pytest.approx(loss_of(tfprune.distill(own, teacher), IMAGES), 1e-4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    loaded.fit(IMAGES, Y, verbose=0)  # it is its own teacher


@pytest.mark.parametrize("momentum", [0, 1, True, "much"])
def test_momentum_is_a_part(momentum):
    with pytest.raises(ValueError, match=r"momentum is how much .* \(0, 1\)"):
        tfprune.MovingAverage(momentum)


@pytest.mark.slow
def test_file_teaches_what_its_model_teaches(tmp_path):
    own, teacher = student(metrics=["accuracy"]), net(5, "teacher")
    tfprune.export(teacher, tmp_path / "teacher.tflite")
    model = tfprune.distill(own, tmp_path / "teacher.tflite")
    assert loss_of(model, IMAGES) == pytest.approx(loss_of(tfprune.distill(own, teacher), IMAGES), 1e-4)
    assert not model.jit_compile
    before = own.get_weights()
    assert list(model.fit(IMAGES, verbose=0).history) == ["loss"]
    assert any((old != new).any() for old, new in zip(before, own.get_weights(), strict=True))
    with pytest.raises(ValueError, match="layers of a Keras model"):
        tfprune.distill(own, tmp_path / "teacher.tflite", features=[(own.layers[1], own.layers[1])])


def heads(width, name, as_list):
    inputs = keras.Input((4,))
    hidden = L.Dense(width, "relu")(inputs)
    outputs = {"z": L.Dense(2, name="box")(hidden), "a": L.Dense(3, "softmax", name="class")(hidden)}
    both = L.Concatenate(name="both")([L.Dense(2, "softmax")(hidden), L.Dense(1, "sigmoid")(hidden)])
    outputs["both"] = both
    return keras.Model(inputs, list(outputs.values()) if as_list else outputs, name=name)


@pytest.mark.parametrize("as_list", [False, True])
def test_each_output_learns_by_what_it_is(as_list):
    x = np.random.default_rng(2).normal(size=(8, 4)).astype("float32")
    own, teacher = heads(5, "student", as_list), heads(7, "teacher", as_list)
    losses, weights = {"z": "mse", "a": "categorical_crossentropy", "both": "mse"}, {"z": 3.0, "a": 1.0, "both": 1.0}
    given = (list(losses.values()), list(weights.values())) if as_list else (losses, weights)
    own.compile("sgd", given[0], loss_weights=given[1])
    model = tfprune.distill(own, teacher, temperature=1, weight=1)
    made, wanted = ([np.asarray(each, "float64") for each in flat(net(x), as_list)] for net in (own, teacher))
    square = ((made[0] - wanted[0]) ** 2).mean()
    classes = (wanted[1] * np.log(wanted[1] / made[1])).sum(-1).mean()
    pair = (wanted[2] * np.log(wanted[2] / made[2]))[:, :2].sum(-1).mean()
    yes, other = wanted[2][:, 2], made[2][:, 2]
    single = (yes * np.log(yes / other) + (1 - yes) * np.log((1 - yes) / (1 - other))).mean()
    assert loss_of(model, x) == pytest.approx(3 * square + classes + pair + single, 1e-4)


def flat(outputs, as_list):
    return outputs if as_list else [outputs[name] for name in ("z", "a", "both")]


def test_structures_that_differ_are_refused():
    own = heads(5, "student", as_list=False)
    own.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"returns a dict of \['a', 'both', 'z'\], the teacher 'teacher' 3 outputs"):
        tfprune.distill(own, heads(5, "teacher", as_list=True))


@pytest.mark.slow
def test_masked_steps_of_a_sequence_do_not_count():
    inputs = keras.Input((None,))
    hidden = L.LSTM(3, return_sequences=True)(L.Embedding(9, 4, mask_zero=True)(inputs))
    teacher = keras.Model(inputs, L.Dense(3, "softmax")(hidden), name="teacher")
    own = keras.models.clone_model(teacher)
    teacher.set_weights([4 * weight for weight in teacher.get_weights()])
    own.compile("sgd", "sparse_categorical_crossentropy")
    x = np.random.default_rng(3).integers(1, 9, (4, 6))
    x[:, 4:] = 0
    wanted, made = (np.asarray(each(x), "float64") for each in (teacher, own))
    expected = (wanted * np.log(wanted / made)).sum(-1)[:, :4].mean()
    assert loss_of(tfprune.distill(own, teacher, temperature=1), tf.constant(x)) == pytest.approx(expected, 1e-3)


@pytest.mark.slow
def test_quantize_aware_student_is_read_through_its_rounding(tmp_path):
    own = tfprune.quantize_aware(student())
    teacher = net(5, "teacher")
    model = tfprune.distill(own, teacher, temperature=2)
    model.fit(IMAGES, Y, verbose=0)
    assert tfprune.strip(model) is own
    made, wanted = (np.asarray(each(IMAGES, training=False), "float64") for each in (own, teacher))
    soft = [value**0.5 / (value**0.5).sum(-1, keepdims=True) for value in (wanted, made)]
    expected = 4 * (soft[0] * np.log(soft[0] / soft[1])).sum(-1).mean()
    assert loss_of(model, IMAGES) == pytest.approx(expected, 1e-2)
    assert "Quantize" not in "".join(type(layer).__name__ for layer in tfprune.strip(own).layers)
    files = [tmp_path / "distilled.tflite", tmp_path / "student.tflite"]
    for each, file in zip((model, own), files, strict=True):
        tfprune.export(each, file, quantize="int8")
    distilled, alone = map(TFLiteModel, files)
    assert distilled.inputs[0].dtype == np.int8
    np.testing.assert_array_equal(distilled.predict(IMAGES), alone.predict(IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}], ids=str
)
@pytest.mark.parametrize("dtypes", [(None, None), ("mixed_float16", None), (None, "mixed_float16")], ids=str)
def test_every_way_of_running_a_step(settings, dtypes):
    own, teacher = student(dtype=dtypes[0], **settings), net(5, "teacher", dtypes[1])
    plain, before = student(), teacher.get_weights()
    plain.set_weights(own.get_weights())
    pair = [(own.get_layer("hidden"), teacher.get_layer("hidden"))]
    model = tfprune.distill(own, teacher, features=pair)
    reference = tfprune.distill(plain, teacher, features=[(plain.get_layer("hidden"), pair[0][1])])
    reference.projections.set_weights(model.projections.get_weights())
    losses = [
        each.fit(IMAGES, Y, verbose=0, batch_size=4, shuffle=False, epochs=2).history["loss"]
        for each in (model, reference)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2 if any(dtypes) else 1e-4)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
