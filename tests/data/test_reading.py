"""Every form of data through every function that takes data: the same results, or the same errors."""

import sys
import weakref
from types import SimpleNamespace

import data_forms as forms
import keras
import numpy as np
import pytest
import tensorflow as tf
from data_forms import BATCH, INPUTS, LABELLED, MODELS, WRONG, A, B, N, W, Y
from networks import same

import tfprune
from tfprune.data import Batch, Reader, inputs_of
from tfprune.drivers.batches import ShuffledBatches
from tfprune.drivers.data import prepare
from tfprune.drivers.validation import Validation
from tfprune.exporting.calibration import gather_samples
from tfprune.html_report.facts import gather
from tfprune.measure.entries import KerasEntry
from tfprune.tflite.unpacking import TFLiteFile

TABLE = [pytest.param(*key, form, id=" ".join(key)) for key, form in {**LABELLED, **INPUTS}.items()]
WITH_LABELS = [pytest.param(*key, form, id=" ".join(key)) for key, form in LABELLED.items()]
WITHOUT = [pytest.param(*key, form, id=" ".join(key)) for key, form in INPUTS.items()]


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


@pytest.fixture
def no_files(monkeypatch):
    """Lets `compare` write, time and weigh nothing."""
    comparing = sys.modules["tfprune.measure.comparing"]
    timing = SimpleNamespace(
        median_ms=1.0, p90_ms=1.0, file_bytes=1, gzip_bytes=1, ratio=1.0, ratio_low=1, ratio_high=1
    )
    monkeypatch.setattr(KerasEntry, "file", lambda self, target, samples: TFLiteFile(b"", target))
    monkeypatch.setattr(comparing, "time_in_turns", lambda paths, *_: [timing] * len(paths))
    monkeypatch.setattr(comparing, "peak_memory", lambda path: None)


def array_inputs(name):
    return A if name == "one" else {"a": A, "b": B}


def accuracy(model, name):
    return float(np.mean(np.asarray(model(array_inputs(name))).argmax(axis=1) == Y))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "form", "data"), TABLE)
def test_recalibrate_measures_the_same(name, form, data):
    expected, model = MODELS[name](), MODELS[name]()
    tfprune.recalibrate(expected, array_inputs(name), batch_size=BATCH)
    hidden = np.asarray(A if name == "one" else np.concatenate([B, A], axis=1)) @ expected.get_layer("dense").kernel
    np.testing.assert_allclose(expected.get_layer("bn").moving_mean, np.mean(hidden, axis=0), atol=1e-6)
    tfprune.recalibrate(model, data(), batch_size=BATCH)
    assert same(expected.get_weights(), model.get_weights())


@pytest.mark.parametrize(("name", "form", "data"), TABLE)
def test_export_calibrates_on_the_same(name, form, data, models):
    samples = gather_samples(data(), models[name], 100)
    assert set(samples) == ({"a"} if name == "one" else {"a", "b"})
    assert all(array.dtype == np.float32 for array in samples.values())
    np.testing.assert_array_equal(samples["a"], A)
    if "b" in samples:
        np.testing.assert_array_equal(samples["b"], B)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("name", "form", "data"), WITH_LABELS)
@pytest.mark.usefixtures("no_files")
def test_compare_and_reports_score_the_same(name, form, data, models):
    expected = accuracy(models[name], name)
    assert 0 < expected < 1
    result = tfprune.compare([models[name]], data(), runs=1)
    assert (result.models[0].score, result.num_samples) == (expected, N)
    assert gather([models[name]], data(), None, None, ()).comparison.models[0].score == expected


@pytest.mark.sampled(3)
@pytest.mark.filterwarnings("ignore:The structure of .inputs")  # fit says so of a dict for a single input
@pytest.mark.parametrize(("name", "form", "data"), WITH_LABELS)
def test_compress_prepares_the_same(name, form, data, models):
    model = models[name]
    if form == "dataset of unknown length":
        with pytest.raises(ValueError, match="The length of data is not known"):
            prepare(model, data(), None, 0)
        return
    if form.startswith(("generator", "list", "iterator")):
        with pytest.raises(TypeError, match="read again and again"):
            prepare(model, data(), None, 0)
        return
    prepared = prepare(model, data(), data(), 0)
    assert Validation(prepared.validation, None).score(model) == accuracy(model, name)
    np.testing.assert_array_equal(prepared.samples(model)["a"], A)
    batch = prepared.first(model)
    assert batch.num_samples in (BATCH, N)
    fresh = keras.models.clone_model(model)
    fresh.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    source = prepared.training
    if isinstance(source, tuple):
        assert num_rows(prepare(model, data(), None, 0).training) == N - 2
        source = ShuffledBatches(source, BATCH, seed=0)
    fresh.fit(source, shuffle=False, verbose=0)
    assert fresh.optimizer.iterations == 3


def num_rows(data):
    return Batch(*data).num_samples


@pytest.mark.parametrize(("name", "form", "data"), WITHOUT)
@pytest.mark.usefixtures("no_files")
def test_inputs_alone_are_refused_where_labels_are_needed(name, form, data, models):
    for use in (lambda: tfprune.compare([models[name]], data()), lambda: prepare(models[name], data(), data(), 0)):
        with pytest.raises((TypeError, ValueError), match=r"needs labels|has the inputs|read again"):
            use()


@pytest.mark.parametrize(("data", "error", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("no_files")
def test_what_does_not_fit_is_refused_alike(data, error, message, models):
    model = models["one"]
    before = model.get_weights()
    uses = {
        "data": [
            lambda: tfprune.recalibrate(model, data()),
            lambda: tfprune.compare([model], data()),
            lambda: gather([model], data(), None, None, ()),
            lambda: prepare(model, data(), (A, Y), 0),
        ],
        "calibration": [lambda: gather_samples(data(), model, 100)],
        "validation": [lambda: prepare(model, (A, Y), data(), 0)],
    }
    for argument, functions in uses.items():
        for use in functions:
            with pytest.raises(error, match=message) as raised:
                use()
            assert argument in str(raised.value)
    assert same(before, model.get_weights())


@pytest.mark.parametrize("form", forms.ENDLESS)
@pytest.mark.usefixtures("no_files")
def test_without_an_end(form, models):
    model, data = models["one"], forms.ENDLESS[form]
    for use in (tfprune.recalibrate, lambda m, d: tfprune.compare([m], d), lambda m, d: gather([m], d, None, None, ())):
        with pytest.raises(ValueError, match=r"data repeats without end.*take\(number_of_batches\), or max_samples"):
            use(model, data())
    with pytest.raises(ValueError, match="endless"):
        prepare(model, data(), None, 0)
    if form == "dataset":
        np.testing.assert_array_equal(gather_samples(data(), model, 30)["a"], np.concatenate([A, A[:10]]))
        assert tfprune.compare([model], data(), max_samples=N).num_samples == N


@pytest.mark.parametrize("form", forms.LAZY)
def test_what_can_be_read_once_is_not_read_twice(form, models):
    reader = Reader(forms.LAZY[form](), inputs_of(models["one"]))
    assert sum(batch.num_samples for batch in reader) == N
    with pytest.raises(ValueError, match="can be read only once"):
        next(iter(reader))


@pytest.mark.parametrize("data", [(A, Y), LABELLED["one", "dataset"](), LABELLED["one", "PyDataset"]()])
def test_all_else_is_read_again(data, models):
    reader = Reader(data, inputs_of(models["one"]), batch_size=BATCH)
    first, second = list(reader), list(reader)
    assert [batch.num_samples for batch in first] == [8, 8, 4]
    assert same([batch.x for batch in first], [batch.x for batch in second])
    assert reader.num_batches == 3


def test_a_py_dataset_is_told_of_the_epoch_and_its_end(models):
    data = forms.Batches(lambda rows: (A[rows], Y[rows]))
    gather_samples(data, models["one"], 5)
    assert data.epochs == ["begin", "end"]


def test_one_batch_is_in_memory(models):
    given, most = [], 0

    def batches():
        nonlocal most
        for _ in range(10):
            array = A.copy()
            given.append(weakref.ref(array))
            most = max(most, sum(each() is not None for each in given))
            yield array, Y

    for _ in Reader(batches(), inputs_of(models["one"])):
        pass
    assert most <= 2  # the last one, until the next is made


def test_arrays_are_spread_and_batches_cut(models):
    inputs = inputs_of(models["one"])
    (batch,) = Reader((A, Y), inputs, max_samples=3)
    np.testing.assert_array_equal(batch.x, A[[0, 10, 19]])
    sizes = [batch.num_samples for batch in Reader(LABELLED["one", "dataset"](), inputs, max_samples=11)]
    assert sizes == [8, 3]


class Own(keras.Model):
    """A model with a call of its own, whose inputs have no names."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, inputs, training=False):
        return self.norm(inputs[0] if isinstance(inputs, (list, tuple)) else inputs, training=training)


@pytest.mark.parametrize(
    ("x", "data"),
    [
        (A, lambda: A),
        (A, lambda: (A, Y)),
        (A, lambda: [A]),
        ([A, B], lambda: ([A, B], Y)),
        ([A, B], lambda: tf.data.Dataset.from_tensor_slices(((A, B), Y)).batch(N)),
    ],
)
def test_a_model_with_its_own_call_takes_what_it_takes(x, data):
    model = Own()
    model(x)
    tfprune.recalibrate(model, data())
    np.testing.assert_allclose(model.norm.moving_mean, A.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_samples_of_other_ranks():
    scalar, column = keras.Input((), name="scalar"), keras.Input((1,), name="column")
    joined = keras.layers.Concatenate()([keras.layers.Reshape((1,))(scalar), column])
    inputs = inputs_of(keras.Model([scalar, column], joined))
    for x in ([A[:, 0], A[:, 0]], [A[:, :1], A[:, :1]]):  # fit takes both for both
        (batch,) = Reader(x, inputs)
        assert [array.shape for array in batch.x] == [(N,), (N, 1)]


def test_whole_numbers_words_and_half_precision():
    ids = inputs_of(keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(9, 2)]))
    (batch,) = Reader(np.ones((4, 3), "int64"), ids)
    assert batch.x.dtype == np.int32
    with pytest.raises(ValueError, match=r"is int32\. Received: float32\. Convert it first"):
        Reader(A, ids)
    words = keras.Input((2,), dtype="string", name="words")
    (batch,) = Reader(tf.constant([["a", "b"]]), inputs_of(keras.Model(words, keras.layers.Identity()(words))))
    assert batch.x.tolist() == [[b"a", b"b"]]
    half = keras.Input((3,), dtype="bfloat16")
    (batch,) = Reader(A, inputs_of(keras.Model(half, keras.layers.Identity()(half))))
    assert batch.x.dtype.name == "bfloat16"


def test_any_size_goes_where_the_model_says_so():
    image = keras.Input((None, None, 1))
    inputs = inputs_of(keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)))
    (batch,) = Reader(np.zeros((2, 5, 7)), inputs)  # the last axis is added
    assert batch.x.shape == (2, 5, 7, 1)
    with pytest.raises(ValueError, match=r"shape \(samples, any, any, 1\)"):
        Reader(np.zeros((2, 5)), inputs)


def test_a_model_from_a_dict_is_asked_by_key_or_by_name():
    a, b = keras.Input((3,), name="first"), keras.Input((2,), name="second")
    with pytest.warns(UserWarning, match="all keys in the dict must match the names"):
        model = keras.Model({"z": a, "y": b}, keras.layers.Concatenate()([a, b]))
    inputs = inputs_of(model)
    for x in ({"z": A, "y": B}, {"first": A, "second": B}):
        (batch,) = Reader(x, inputs)
        assert same([batch.x["z"], batch.x["y"]], [A, B])


def test_a_nested_structure_is_kept():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    inputs = inputs_of(keras.Model([{"a": a}, b], keras.layers.Concatenate()([a, b])))
    for x in (([{"a": A}, B],), {"a": A, "b": B}):
        (batch,) = Reader(x, inputs)
        assert same([batch.x[0]["a"], batch.x[1]], [A, B])


def test_names_that_a_file_cannot_have_go_by_either_name():
    image = keras.Input((3,), name="my-image")
    model = keras.Model(image, keras.layers.Dense(2)(image))
    for name in ("my-image", "my_image"):
        assert list(gather_samples({name: A}, model, 100)) == ["my_image"]


class EnoughError(Exception):
    pass


def test_export_hands_on_what_it_gathers(tmp_path, models, monkeypatch):
    def converts(model, quantize, samples, *_):
        converts.samples = samples
        raise EnoughError

    monkeypatch.setattr(sys.modules["tfprune.exporting.exporter"], "to_tflite", converts)
    for data in (([B, A], Y), ([B, A], Y, W), tf.data.Dataset.from_tensor_slices(((B, A), Y)).batch(7)):
        with pytest.raises(EnoughError):
            tfprune.export(models["two"], tmp_path / "m.tflite", quantize="int8", calibration=data)
        assert list(converts.samples) == ["b", "a"]
        assert same(list(converts.samples.values()), [B, A])


@pytest.mark.usefixtures("no_files")
class TestWeights:
    WEIGHTS = np.arange(N) / 7.0

    def evaluated(self, model, weights):
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        copy.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
        return copy.evaluate(A, Y, sample_weight=weights, verbose=0, return_dict=True)["accuracy"]

    def score(self, model, data, metric=None):
        return tfprune.compare([model], data, metric=metric, runs=1).models[0].score

    def test_accuracy_is_that_of_evaluate(self, models):
        expected = self.evaluated(models["one"], self.WEIGHTS)
        assert expected != accuracy(models["one"], "one")
        dataset = tf.data.Dataset.from_tensor_slices((A, Y, self.WEIGHTS)).batch(BATCH)
        for data in ((A, Y, self.WEIGHTS), (A, Y, self.WEIGHTS[:, None]), dataset):
            assert self.score(models["one"], data) == pytest.approx(expected, rel=1e-6)
            prepared = prepare(models["one"], (A, Y), data, 0)
            assert Validation(prepared.validation, None).score(models["one"]) == pytest.approx(expected, rel=1e-6)

    def test_metrics_of_keras_and_functions_that_take_them_weigh(self, models):
        data = (A, Y, self.WEIGHTS)
        expected = self.evaluated(models["one"], self.WEIGHTS)
        metric = keras.metrics.SparseCategoricalAccuracy()
        assert self.score(models["one"], data, metric) == pytest.approx(expected, rel=1e-6)

        def weighted(y, outputs, sample_weight=None):
            return np.average(outputs.argmax(axis=1) == y, weights=sample_weight)

        assert self.score(models["one"], data, weighted) == pytest.approx(expected, rel=1e-6)
        assert self.score(models["one"], (A, Y), weighted) == accuracy(models["one"], "one")

    def test_what_cannot_weigh_says_so(self, models):
        with pytest.raises(ValueError, match=r"metric '<lambda>' takes none.*sample_weight"):
            self.score(models["one"], (A, Y, self.WEIGHTS), lambda y, outputs: 1.0)
        with pytest.raises(ValueError, match=r"one weight for each sample.*\(20, 2\)"):
            self.score(models["one"], (A, Y, np.ones((N, 2))))
        with pytest.raises(ValueError, match="sum to 0"):
            self.score(models["one"], (A, Y, np.zeros(N)))
