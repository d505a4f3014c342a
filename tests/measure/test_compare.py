"""`compare`: values by hand, files as they are, and errors before the work."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import chain, images, randomize, residual

import tfprune
from tfprune.common.files import gzip_size
from tfprune.data import Batch
from tfprune.measure.entries import FileEntry, KerasEntry
from tfprune.measure.opening import open_entries
from tfprune.measure.outputs import Output, places_of
from tfprune.measure.scores import Accuracy
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile

L = keras.layers


def scorer(weights, name="scorer"):
    """Three numbers in, two classes out, by a matrix."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, use_bias=False)], name=name)
    model.set_weights([np.asarray(weights, "float32")])
    return model


FIRST, SECOND = [[1, 0], [0, 1], [0, 0]], [[0, 1], [1, 0], [0, 0]]  # says the largest of two; says the smallest
X = np.array([[2, 1, 0], [3, 1, 0], [1, 2, 0], [5, 4, 0], [1, 9, 0]], "float32")
Y = np.array([0, 0, 1, 1, 1])  # FIRST is wrong about the fourth only


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network as `.keras`, as float and as int8 file, and a smaller one."""
    folder = tmp_path_factory.mktemp("compare")
    keras.utils.set_random_seed(0)
    x, _ = images(40)
    model = randomize(residual())
    model.save(folder / "dense.keras")
    tfprune.export(model, folder / "dense.tflite", calibration=x)
    tfprune.export(model, folder / "int8.tflite", quantize="int8", calibration=x)
    randomize(chain((2, 3))).save(folder / "small.keras")
    return folder


@pytest.fixture
def no_costs(files, monkeypatch):
    """Costs and times are those of some other file: to export and measure takes time."""
    monkeypatch.setattr(KerasEntry, "file", lambda *_: TFLiteFile.read(files / "dense.tflite"))
    monkeypatch.setattr(sys.modules["tfprune.measure.comparing"], "peak_memory", lambda path: None)


@pytest.fixture
def scored(no_costs):
    """Accuracy and number of samples."""

    def score(data, **options):
        result = tfprune.compare([scorer(FIRST)], data, runs=1, **options)
        return result.models[0].score, result.num_samples

    return score


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if anything is exported, timed or predicted."""
    for name in ("file", "predict"):
        for entry in (KerasEntry, FileEntry):
            monkeypatch.setattr(entry, name, lambda *_: pytest.fail("worked before it had checked"))


def test_accuracy_by_hand():
    result = tfprune.compare({"good": scorer(FIRST), "bad": scorer(SECOND)}, (X, Y), runs=1)
    assert [(row.name, row.score) for row in result.models] == [("good", 0.8), ("bad", 0.2)]
    assert (result.metric, result.num_samples, result.runs) == ("accuracy", 5, 1)
    assert "80.00%" in str(result)
    assert "-60.00 pp" in str(result)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "data",
    [
        (X, np.eye(2)[Y]),
        (X, Y[:, None].astype("float32")),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(2),
        tf.data.Dataset.from_tensor_slices((X, np.eye(2)[Y])).batch(3),
        Sequence(),
        [(X[:1], Y[:1]), (X[1:], Y[1:])],
    ],
    ids=["one_hot", "column", "dataset", "one_hot_dataset", "pydataset", "list"],
)
def test_every_form_of_data_gives_the_same_accuracy(data, scored):
    assert scored(data) == (0.8, 5)


def test_limit_is_spread_over_arrays_and_takes_the_first_of_a_dataset(scored):
    assert scored((X, Y), max_samples=3) == (1.0, 3)  # samples 0, 2 and 4
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(3).repeat()
    assert scored(dataset, max_samples=4) == (0.75, 4)  # the first four, one of them wrong
    assert scored((X, Y), max_samples=100) == (0.8, 5)


def test_a_generator_is_read_once_and_shown_to_all():
    result = tfprune.compare([scorer(FIRST), scorer(SECOND)], ((X[i : i + 2], Y[i : i + 2]) for i in (0, 2)), runs=1)
    assert [row.score for row in result.models] == [0.75, 0.25]
    assert [row.name for row in result.models] == ["scorer", "scorer (2)"]


def test_a_nan_is_no_answer():
    result = Accuracy((2,))
    result.add(Batch(X[:2], np.array([0, 0])), np.array([[np.nan, 0.0], [1.0, 0.0]]))
    assert result.result() == 0.5


def test_metrics_of_keras_and_functions(scored):
    answers = X @ np.asarray(FIRST)
    targets = np.zeros((5, 2))
    error = float(np.abs(answers).mean())
    metric = keras.metrics.MeanAbsoluteError()
    assert scored((X, targets), metric=metric) == (pytest.approx(error, rel=1e-6), 5)
    assert metric.variables[1].numpy() == 0  # its state is that of a fresh one
    assert scored((X, targets), metric=lambda y, p: np.abs(y - p).mean())[0] == pytest.approx(error)
    with pytest.raises(ValueError, match=r"must return one number.*shape \(5,\)"):
        scored((X, targets), metric=keras.losses.mean_absolute_error)


def test_files_are_measured_as_they_are(files):
    x, y = images(30, seed=1)
    paths = [files / "dense.tflite", files / "int8.tflite", files / "dense.keras", files / "small.keras"]
    result = tfprune.compare([str(paths[0]), *paths[1:]], (x, y), runs=3)
    dense, int8, model, small = result.models
    assert [row.name for row in result.models] == ["dense.tflite", "int8.tflite", "dense.keras", "small.keras"]
    for row, path in ((dense, paths[0]), (int8, paths[1])):
        assert row.score == np.mean(TFLiteModel(path).predict(x).argmax(axis=1) == y)
        assert row.file_bytes == path.stat().st_size
        assert row.gzip_bytes == gzip_size(path.read_bytes())
    loaded = keras.saving.load_model(paths[2])
    assert model.score == np.mean(keras.ops.convert_to_numpy(loaded(x)).argmax(axis=1) == y)
    assert model.macs == dense.macs == int8.macs == tfprune.profile(loaded).macs
    assert model.parameters == loaded.count_params()
    # the file of a Keras model is that of `export`, and normalization is folded into it: 2 x 5 numbers become one bias
    assert abs(model.file_bytes - dense.file_bytes) < 200
    assert dense.parameters == model.parameters - 2 * 4 * 5 + 5
    assert small.macs == tfprune.profile(keras.saving.load_model(paths[3])).macs


def test_latencies_are_ratios_to_the_first(files):
    result = tfprune.compare([files / "dense.tflite", files / "int8.tflite"], images(4), runs=5)
    first, second = result.models
    for latency in (first.latency, first.latency_all_cores):
        assert latency.ratio == latency.ratio_low == latency.ratio_high == 1.0
        assert 0 < latency.median_ms <= latency.p90_ms
    assert second.latency.ratio_low <= second.latency.ratio <= second.latency.ratio_high
    assert first.latency.num_threads == 1
    assert first.latency_all_cores.num_threads >= 1


def test_json_round_trip_and_table(files, tmp_path):
    result = tfprune.compare({"base [float]": files / "dense.tflite", "b": files / "int8.tflite"}, images(6), runs=1)
    saved = json.loads(result.save(tmp_path / "comparison.json").read_text())
    assert saved == json.loads(json.dumps(result.to_dict()))
    assert saved["models"][1]["latency"]["median_ms"] == result.models[1].latency.median_ms
    text = str(result)
    assert "base [float]" in text.replace("\n", "")
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "Comparison on 6 samples" in text


def test_several_inputs_come_as_a_dict(tmp_path):
    first, second = keras.Input((2,), name="z"), keras.Input((3,), name="a")
    model = randomize(keras.Model({"z": first, "a": second}, L.Dense(2)(L.Concatenate()([first, second]))))
    tfprune.export(model, tmp_path / "two.tflite")
    random = np.random.default_rng(0)
    x = {"z": random.normal(size=(9, 2)), "a": random.normal(size=(9, 3))}
    y = keras.ops.convert_to_numpy(model(x)).argmax(axis=1)
    result = tfprune.compare([model, tmp_path / "two.tflite"], (x, y), runs=1)
    assert [row.score for row in result.models] == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"has the inputs \['a', 'z'\].*a dict by name"):
        tfprune.compare([model], (x["z"], y))


def test_the_model_is_left_as_it_was():
    model = scorer(FIRST)
    model.compile("sgd", "sparse_categorical_crossentropy")
    tfprune.compare([model], (X, Y), runs=1)
    assert model.predict_function is None
    assert model.optimizer.iterations.numpy() == 0


def test_progress_is_shown_on_a_terminal_only(scored, monkeypatch, capsys):
    scored((X, Y))
    assert "latency" not in "".join(capsys.readouterr())
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes rich write as to a terminal
    scored((X, Y), progress=False)
    assert "latency" not in "".join(capsys.readouterr())
    scored((X, Y))
    shown = capsys.readouterr()
    assert "latency" not in shown.out
    assert all(step in shown.err for step in ("files", "accuracy", "latency", "memory"))


def test_names_are_told_apart():
    models = [scorer(FIRST, name) for name in ("a", "b", "a", "a (2)", "a")]
    assert [entry.name for entry in open_entries(models)] == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((X[:0], Y[:0]), ValueError, "no samples"),
        ([], ValueError, "no samples"),
        (X, TypeError, "Received: ndarray.*needs labels"),
        ({"x": X}, TypeError, "Received: dict.*needs labels"),
        ([X, Y], ValueError, r"data as \(x, y\)"),
        ((X, Y, Y, Y), ValueError, r"\(x, y, sample_weight\), as for fit. Received: a tuple of 4 parts"),
        ((X, Y[:3]), ValueError, "differ in their number of samples"),
        ((X[:, :2], Y), ValueError, r"expected arrays of shape \(samples, 3\).*\(5, 2\)"),
        ((X, np.eye(3)[Y]), ValueError, "The labels have 3 classes, the models 2"),
        ((X, np.array([0, 1, 1, 0, 2])), ValueError, "labels go from 0 to 2"),
        ((X, np.ones((5, 2))), ValueError, "one-hot"),
        ((X, Y + 0.5), ValueError, "integer labels"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), ValueError, "Batch the dataset"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).repeat(), ValueError, "without end.*max_samples"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_data_that_does_not_fit(data, error, message):
    with pytest.raises(error, match=message):
        tfprune.compare([scorer(FIRST)], data)


@pytest.mark.usefixtures("no_work")
def test_entries_that_cannot_be_compared(files, tmp_path):
    whole = (files / "dense.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "cut.keras").write_bytes((files / "dense.keras").read_bytes()[:500])
    (tmp_path / "folder.tflite").mkdir()
    heads = two_heads(dict)
    cases = [
        ([], ValueError, "at least one"),
        ({}, ValueError, "at least one"),
        (scorer(FIRST), TypeError, "a list or a dict"),
        ("model.tflite", TypeError, "a list or a dict"),
        ([tmp_path / "missing.tflite"], FileNotFoundError, "There is no file"),
        ([tmp_path / "folder.tflite"], IsADirectoryError, "is a folder"),
        ([tmp_path / "model.onnx"], ValueError, r"ends in \.keras, \.h5 or \.tflite"),
        ([tmp_path / "model.h5"], FileNotFoundError, "There is no file"),
        ([tmp_path / "cut.tflite"], ValueError, "cut short"),
        ([tmp_path / "cut.keras"], ValueError, "cut short"),
        (
            [heads, scorer(FIRST)],
            ValueError,
            r"gives 'best' \(2,\), 'least' \(2,\) for a sample, 'scorer' gives \(2,\)",
        ),
        ([heads], ValueError, r"outputs \['best', 'least'\]: give labels as a dict.*Received: one array"),
        ([scorer(FIRST), files / "dense.keras"], ValueError, "The outputs differ"),
        ([scorer(FIRST), 3], TypeError, "Keras 3 model"),
        ([keras.Sequential([keras.Input((3,)), L.Dense(1)])], ValueError, r"shape \(1,\).*BinaryAccuracy"),
    ]
    for models, error, message in cases:
        with pytest.raises(error, match=message):
            tfprune.compare(models, (X, Y))


@pytest.mark.usefixtures("no_work")
def test_arguments_that_make_no_sense():
    with pytest.raises(ValueError, match="runs must be 1 or more"):
        tfprune.compare([scorer(FIRST)], (X, Y), runs=0)
    with pytest.raises(ValueError, match="max_samples must be a whole number of at least 1"):
        tfprune.compare([scorer(FIRST)], (X, Y), max_samples=0)
    for metric in ("accuracy", keras.metrics.MeanSquaredError):
        with pytest.raises(TypeError, match="metric must be"):
            tfprune.compare([scorer(FIRST)], (X, Y), metric=metric)


@pytest.mark.usefixtures("no_work")
def test_a_model_with_code_inside_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x[:, :2])])
    model.save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="unsafe"):
        tfprune.compare([tmp_path / "code.keras"], (X, Y))


def test_a_quantize_aware_model_stands_with_its_int8_file(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    aware = tfprune.quantize_aware(model)
    x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    aware(x, training=True)
    tfprune.export(aware, tmp_path / "aware.tflite", quantize="int8", io_dtype="float32")
    rows = tfprune.compare([model, aware, str(tmp_path / "aware.tflite")], (x, np.arange(40) % 3), runs=1).models
    assert rows[1].file_bytes < rows[0].file_bytes
    assert rows[1].score == rows[2].score


def two_heads(structure, name="heads"):
    """The largest of two, and the smallest: outputs in a dict, a list or a tuple."""
    inputs = keras.Input((3,), name="x")
    best, least = (L.Dense(2, use_bias=False, name=each)(inputs) for each in ("best", "least"))
    outputs = {"least": least, "best": best} if structure is dict else structure([best, least])
    model = keras.Model(inputs, outputs, name=name)
    model.get_layer("best").set_weights([np.array(FIRST, "float32")])
    model.get_layer("least").set_weights([np.array(SECOND, "float32")])
    return model


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The same two heads as models in every structure, and as a file of each, float and int8."""
    folder = tmp_path_factory.mktemp("heads")
    models = {structure.__name__: two_heads(structure) for structure in (dict, list, tuple)}
    tfprune.export(models["dict"], folder / "dict.tflite")
    tfprune.export(models["list"], folder / "int8.tflite", quantize="int8", calibration=X)
    return {**models, "file": folder / "dict.tflite", "int8": folder / "int8.tflite"}


HALF = np.array([0, 0, 1, 0, 0])  # for the second head, which is right about the first two only: it says 1 1 0 1 0


def check_heads(models, y):
    result = tfprune.compare(models, (X, y), runs=1)
    for row in result.models:
        assert row.scores == {"best": 0.8, "least": 0.2}, row.name
        assert row.score == pytest.approx(0.5)
    return result


def test_outputs_of_models_and_files_are_matched_by_name(many):
    result = check_heads(many, {"best": Y, "least": HALF})
    assert (result.metric, result.num_samples) == ("accuracy", 5)
    assert "accuracy is the mean over the outputs. dict: best 0.8, least 0.2;" in " ".join(str(result).split())
    assert result.to_dict()["models"][0]["scores"] == {"best": 0.8, "least": 0.2}


@pytest.mark.usefixtures("no_costs")
@pytest.mark.parametrize("y", [{"least": HALF, "best": np.eye(2)[Y], "unread": Y}, [Y, HALF], (Y, HALF)])
def test_labels_of_several_outputs_in_every_structure(many, y):
    check_heads({name: many[name] for name in ("tuple", "dict", "list")}, y)


@pytest.mark.usefixtures("no_costs")
def test_a_metric_for_each_output_and_for_one_alone(many):
    metrics = {"best": None, "least": lambda y, p: np.abs(p - y).mean()}
    targets = X @ np.asarray(SECOND) + 2.0
    result = tfprune.compare([many["dict"]], (X, {"best": Y, "least": targets}), metric=metrics, runs=1)
    assert result.models[0].scores == {"best": 0.8, "least": pytest.approx(2.0)}
    assert result.metric == "accuracy, <lambda>"
    for labels in (Y, {"best": Y}):
        (row,) = tfprune.compare([many["tuple"]], (X, labels), metric={"best": None}, runs=1).models
        assert row.scores == {"best": 0.8}
        assert row.score == 0.8


@pytest.mark.usefixtures("no_costs")
def test_sample_weights_are_for_all_outputs_or_for_each(many):
    weights, y = np.array([1.0, 1, 1, 0, 1]), [Y, HALF]
    (row,) = tfprune.compare([many["list"]], (X, y, weights), runs=1).models
    assert row.scores == {"best": 1.0, "least": 0.25}
    (row,) = tfprune.compare([many["list"]], (X, y, {"best": weights, "least": 1 - weights}), runs=1).models
    assert row.scores == {"best": 1.0, "least": 0.0}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("y", "metric", "message"),
    [
        (Y, None, r"the outputs \['best', 'least'\]: give labels as a dict by these names.*Received: one array"),
        ([Y], None, "Received: one array"),
        ([Y, Y, Y], None, "or a list in this order. Received: a list of 3"),
        ({"best": Y}, None, "Received: one array"),
        ({"best": Y, "worst": Y}, None, r"Received: \['best', 'worst'\], and nothing for 'least'"),
        ([Y, Y], {"worst": None}, r"has the name 'worst', and the outputs are \['best', 'least'\]"),
        ([Y, Y], {}, "an empty dict"),
        ([Y, Y + 5], None, "labels go from 5 to 6"),
    ],
)
def test_labels_that_belong_to_no_output(many, y, metric, message):
    with pytest.raises(ValueError, match=message):
        tfprune.compare([many["dict"]], (X, y), metric=metric)


def test_outputs_without_names_of_their_own_are_matched_by_order():
    named = [Output("boxes", (4,), ("box_layer",)), Output("scores", (3,))]
    assert places_of([Output("output_0", (4,)), Output("output_1", (3,))], named) == [0, 1]
    assert places_of([Output("a", (3,), ("scores",)), Output("box_layer", (4,))], named) == [1, 0]
    assert places_of([Output("left", (4,)), Output("right", (3,))], named) is None  # which is which is not known
    assert places_of([Output("boxes", (3,)), Output("scores", (4,))], named) is None
    assert places_of([Output("anything", (4,))], named[:1]) == [0]


def test_many_models_in_turn_are_no_loop_to_warn_of(caplog):
    for width in range(1, 8):
        entry = KerasEntry("model", keras.Sequential([keras.Input((2,)), keras.layers.Dense(width)]))
        entry.predict(entry.samples(np.zeros((1, 2), "float32")))
    assert "retracing" not in caplog.text
