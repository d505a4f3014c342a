"""`compress`: the budget is met by the file itself, nothing is lost by an interruption, and errors come first."""

import contextlib
import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import same, weights_of

import tfprune
from tfprune import Budget, CompressOptions
from tfprune.drivers import epochs, training
from tfprune.drivers.compression import answers, compressor, planning, result, steps
from tfprune.drivers.compression.choosing import Chooser
from tfprune.drivers.data import prepare
from tfprune.drivers.display import Display
from tfprune.drivers.folder import Folder
from tfprune.drivers.validation import Validation
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import unpack

L = keras.layers
EPOCHS = 4  # one after the first pruning, two after the second, one for int8


def options(**chosen):
    return CompressOptions(**{"steps": 2, "batch_size": 32, "learning_rate": 0.01, "progress": False, **chosen})


def arrays(count=90, seed=1):
    """Noise around one picture per class."""
    pictures = np.random.default_rng(0).normal(size=(3, 6, 6, 1))
    labels = np.arange(count) % 3
    noise = np.random.default_rng(seed).normal(size=(count, 6, 6, 1))
    return (pictures[labels] + 0.3 * noise).astype("float32"), labels


def network(filters=8):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(filters, 3, use_bias=False, name="first"),
            L.BatchNormalization(momentum=0.8, name="first_bn"),
            L.ReLU(),
            L.Conv2D(filters, 3, activation="relu", name="second"),
            L.Flatten(),
            L.Dense(3, name="classes"),
        ],
        name="tiny",
    )
    # Eager steps: to compile a function takes longer than to train these few.
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=True,
    )
    return model


@pytest.fixture(scope="module")
def trained():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = network()
    model.fit(*arrays(), batch_size=16, epochs=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The report of a pass that was not interrupted, and all of the model before and after it."""
    before = weights_of(trained), [variable.numpy().copy() for variable in trained.optimizer.variables]
    path = tmp_path_factory.mktemp("whole") / "model.tflite"
    report = tfprune.compress(
        trained,
        arrays(),
        budget=Budget(macs=0.5),
        path=path,
        validation=arrays(30, seed=2),
        epochs=EPOCHS,
        options=options(max_drop=0.2),
    )
    after = weights_of(trained), [variable.numpy() for variable in trained.optimizer.variables]
    return report, before, after


def chooser(informed=False, **granularity):
    return Chooser(arrays(), informed, CompressOptions(**granularity).granularity())


@pytest.fixture
def quick(whole, monkeypatch):
    """Without the comparison at the end, which takes seconds and is tested elsewhere."""
    monkeypatch.setattr(compressor, "compare", lambda *_, **__: whole[0].comparison)


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if anything is trained or exported."""
    monkeypatch.setattr(training.Fit, "train", lambda *_: pytest.fail("trained before it had checked"))
    monkeypatch.setattr(result, "export", lambda *_, **__: pytest.fail("exported before it had checked"))


def again(model, path, **changes):
    """The call of `whole` once more, to another place."""
    given = {
        "data": arrays(),
        "budget": Budget(macs=0.5),
        "path": path,
        "validation": arrays(30, seed=2),
        "epochs": EPOCHS,
        "options": options(),
        **changes,
    }
    return tfprune.compress(model, given.pop("data"), **given)


def test_the_file_is_int8_and_the_report_tells_the_truth(whole, trained):
    report = whole[0]
    path, folder = Path(report.path), Path(report.folder)
    assert [str(details.dtype) for details in TFLiteModel(path).inputs] == ["int8"]
    assert report.export.quantize == "int8"
    assert report.export.float_operators == ()
    assert report.export.path == str(path)
    assert report.export.file_bytes == path.stat().st_size == report.comparison.models[2].file_bytes
    dense = tfprune.profile(trained)
    assert (report.phases[0].macs, report.phases[0].parameters) == (dense.macs, dense.parameters)
    for phase in report.phases[1:3]:
        found = tfprune.profile(keras.models.load_model(folder / f"{phase.name}.keras"))
        assert (phase.macs, phase.parameters) == (found.macs, found.parameters)
    assert [phase.name for phase in report.phases] == ["dense", "prune-1", "prune-2", "quantize"]
    assert [phase.epochs for phase in report.phases] == [0, 1, 2, 1]
    assert [phase.learning_rate for phase in report.phases] == [0.0, 0.01, 0.01, 0.001]


def test_macs_budget_is_met_in_geometric_steps(whole):
    report = whole[0]
    dense, first, second, last = (phase.macs for phase in report.phases)
    assert second <= dense / 2 < first <= dense * 0.5**0.5
    assert second == last
    (line,) = report.budget
    assert (line.name, line.limit, line.reached, line.met) == ("macs", dense / 2, second, True)
    assert report.budget_met


def test_scores_are_those_of_the_comparison_and_of_keras(whole, trained):
    report = whole[0]
    x, y = arrays(30, seed=2)
    by_hand = float(np.mean(trained(x).numpy().argmax(axis=1) == y))
    dense, pruned, file = report.comparison.models
    assert report.phases[0].score == pytest.approx(by_hand)
    assert (report.phases[0].score, report.phases[2].score) == (dense.score, pruned.score)
    assert report.drop == dense.score - file.score
    assert dense.score > 0.9
    assert file.score > 0.6  # of three classes: it has learned, and keeps what it learned
    assert report.drop_allowed == (report.drop <= 0.2)


def test_the_model_is_not_changed(whole, trained):
    _, before, after = whole
    assert same(before[0], after[0])
    assert same(before[1], after[1])
    assert trained.compiled


def test_report_prints_and_saves(whole, tmp_path):
    report = whole[0]
    text = str(report)
    assert "Budget met: macs" in text
    assert "max_drop=0.2" in text
    assert "Comparison on 30 samples" in text
    saved = json.loads(report.save(tmp_path / "report.json").read_text())
    assert [phase["macs"] for phase in saved["phases"]] == [phase.macs for phase in report.phases]
    assert saved == json.loads((Path(report.folder) / "report.json").read_text())


def test_what_remains_is_the_models_of_the_phases(whole):
    names = {path.name for path in Path(whole[0].folder).iterdir()}
    assert names == {"state.json", "report.json", "prune-1.keras", "prune-2.keras", "quantize.keras"}


class StopError(Exception):
    pass


@contextlib.contextmanager
def stopped(owner, name, nth=1, after=False):
    """Raise in the nth call of a function, or behind it."""
    original, calls = getattr(owner, name), []

    def instead(*args, **kwargs):
        calls.append(1)
        if len(calls) == nth and not after:
            raise StopError
        found = original(*args, **kwargs)
        if len(calls) == nth:
            raise StopError
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, instead)
        with pytest.raises(StopError):
            yield


def substance(path):
    """All of a file but its names, in which Keras counts the layers of the process."""
    file = unpack(Path(path).read_bytes())
    (graph,) = file.subgraphs
    tensors = [(list(t.shape), t.type, t.buffer, _quantization(t)) for t in graph.tensors]
    operators = [(op.opcodeIndex, list(op.inputs), list(op.outputs)) for op in graph.operators]
    return (
        len(file.buffers),
        [bytes(buffer.data) for buffer in file.buffers if buffer.data is not None],
        tensors,
        operators,
    )


def _quantization(tensor):
    found = tensor.quantization
    return None if found is None or found.scale is None else (list(found.scale), list(found.zeroPoint))


@pytest.mark.slow
def test_goes_on_wherever_it_was_interrupted(whole, trained, quick, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    places = [
        (compressor, "find_macs", 1, True),
        (Folder, "keep", 1, False),  # trained to the end, not yet saved
        (Folder, "finish", 1, False),  # saved, not yet noted
        (Folder, "finish", 1, True),
        (epochs.Backup, "on_epoch_end", 1, True),  # in the middle of a training
        (epochs.StopAtNaN, "on_epoch_end", 1, False),  # trained an epoch that is not saved
        (Folder, "finish", 1, True),
        (Folder, "finish", 1, True),
        (result, "export", 1, False),
        (result, "write_atomically", 1, False),
        (result, "write_atomically", 1, True),  # the file is there, and ours
    ]
    for owner, name, nth, after in places:
        with stopped(owner, name, nth, after):
            again(trained, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epochs.Seeds, "on_epoch_begin", lambda *_: pytest.fail("trained what was done"))
        report = again(trained, path, options=options(progress=True))
    assert substance(path) == substance(whole[0].path)
    assert report.phases == whole[0].phases
    for name in ("prune-1", "prune-2", "quantize"):
        first, second = (keras.models.load_model(f"{each.folder}/{name}.keras") for each in (report, whole[0]))
        assert same(weights_of(first), weights_of(second))
    said = capsys.readouterr().err
    assert "Going on with" in said
    assert said.count("done before") == 3


KILLED = """
import os, signal, sys
from test_compress import again, arrays, network
import keras
from tfprune.drivers import epochs
keras.utils.set_random_seed(0)
model = network()
model.fit(*arrays(), batch_size=16, epochs=4, verbose=0)
if sys.argv[2] == "kill":
    original, calls = epochs.StopAtNaN.on_epoch_end, []
    def kill(self, epoch, logs=None):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, epoch, logs)
    epochs.StopAtNaN.on_epoch_end = kill
again(model, sys.argv[1])
"""


@pytest.mark.slow
def test_goes_on_after_a_kill(tmp_path):
    def run(folder, how):
        path = sys.path[:]
        command = [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{KILLED}", tmp_path / folder, how]
        return subprocess.run(command, capture_output=True, text=True).returncode

    assert run("killed.tflite", "kill") == -9
    assert not (tmp_path / "killed.tflite").exists()
    assert run("killed.tflite", "") == run("whole.tflite", "") == 0
    assert substance(tmp_path / "killed.tflite") == substance(tmp_path / "whole.tflite")


@pytest.mark.slow
class TestSize:
    def test_the_file_is_no_larger_than_asked(self, trained, quick, tmp_path):
        report = again(
            trained, tmp_path / "model.tflite", budget=Budget(file_bytes=0.8), epochs=2, options=options(steps=1)
        )
        (line,) = report.budget
        assert (tmp_path / "model.tflite").stat().st_size == line.reached <= line.limit
        assert line.reached > 0.8 * line.limit  # and not much smaller either
        assert line.met

    def test_is_searched_with_few_measurements(self, trained):
        asked = []

        def measure(model):
            asked.append(1)
            return 1000.0 + tfprune.profile(model).macs

        dense = tfprune.profile(trained).macs
        found = planning._search(trained, dense, "file_bytes", 1000 + 0.5 * dense, measure, chooser())
        assert 0.4 * dense < found <= 0.5 * dense
        assert len(asked) <= 5

    def test_says_how_small_it_can_be(self, trained):
        with pytest.raises(ValueError, match=r"file_bytes=500 cannot be met.*it is 1.*Raise the budget"):
            planning._search(trained, tfprune.profile(trained).macs, "file_bytes", 500, lambda model: 1234.0, chooser())

    def test_a_network_is_narrowed_until_its_file_fits(self, trained):
        class Files:
            def size(self, model):
                return 10 * tfprune.profile(model).macs

        dense = tfprune.profile(trained).macs
        widths = planning.narrow(trained, dense, {"file_bytes": 5 * dense}, Files(), chooser())
        assert widths.count(trained)["macs"] <= dense / 2

    def test_files_are_searched_among_the_widths_that_may_be(self, trained):
        asked = []

        def measure(model):
            asked.append([model.get_layer(name).filters for name in ("first", "second")])
            return float(tfprune.profile(model).macs)

        dense = tfprune.profile(trained).macs
        planning._search(trained, dense, "file_bytes", 0.6 * dense, measure, chooser(min_channels=2, round_to=2))
        assert len(asked) > 2
        assert all(width % 2 == 0 for widths in asked for width in widths)

    def test_a_network_within_the_budget_is_not_pruned(self, trained, quick, tmp_path):
        report = again(trained, tmp_path / "model.tflite", budget=Budget(file_bytes=10**6))
        assert [phase.name for phase in report.phases] == ["dense", "quantize"]
        assert report.phases[1].macs == report.phases[0].macs


@pytest.mark.parametrize("informed", [True, False])
def test_groups_keep_the_numbers_of_channels_that_are_asked_for(trained, informed):
    chooses = chooser(round_to=4, informed=informed)
    macs, limits = planning.find_macs(trained, Budget(macs=0.7), None, chooses)
    widths = planning.narrow(trained, macs, limits, None, chooses)
    assert sorted(widths.values()) == [4, 8]
    assert macs == widths.count(trained)["macs"] <= 0.7 * tfprune.profile(trained).macs
    with pytest.raises(ValueError, match="cannot be met"):
        planning.find_macs(trained, Budget(macs=0.1), None, chooser(min_channels=4, informed=informed))


class TestLatency:
    @pytest.fixture
    def clock(self, monkeypatch, tmp_path):
        """Networks are as slow as their operations say, plus a tenth of the dense one's."""
        monkeypatch.setattr(planning.Int8Files, "path", lambda _, model: tfprune.profile(model).macs)
        ratio = lambda dense, other: 0.1 + 0.9 * other / dense if isinstance(other, int) else 0.45  # noqa: E731
        monkeypatch.setattr(planning, "latency_ratio", ratio)
        monkeypatch.setattr(result, "latency_ratio", ratio)

    def test_becomes_a_number_of_operations(self, trained, clock):
        files = planning.Int8Files(None, None, "int8", Display(False))
        macs, limits = planning.find_macs(trained, Budget(latency=0.5), files, chooser())
        assert limits == {"latency": 0.5}
        assert 0.3 < macs / tfprune.profile(trained).macs <= 0.4 / 0.9

    @pytest.mark.slow
    def test_is_measured_anew_in_the_end(self, trained, quick, clock, tmp_path):
        call = {"budget": Budget(latency=0.44), "epochs": 2, "options": options(steps=1)}
        with pytest.warns(UserWarning, match=r"not met: latency is 0\.45, and was to be 0\.44 at most"):
            report = again(trained, tmp_path / "m.tflite", **call)
        (line,) = report.budget
        assert (line.name, line.limit, line.reached, line.met) == ("latency", 0.44, 0.45, False)
        assert not report.budget_met
        assert "Budget NOT MET: latency x 0.45 of 0.44 times" in str(report)

    def test_out_of_reach(self, trained, clock):
        files = planning.Int8Files(None, None, "int8", Display(False))
        with pytest.raises(ValueError, match=r"latency=0.05 cannot be met"):
            planning.find_macs(trained, Budget(latency=0.05), files, chooser())

    @pytest.mark.parametrize("use", [tfprune.prune_channels, tfprune.widen])
    @pytest.mark.parametrize("limit", ["latency", "file_bytes"])
    def test_others_refuse_what_only_a_file_has(self, trained, use, limit):
        with pytest.raises(ValueError, match=rf"Only tfprune\.compress measures {limit}"):
            use(trained, budget=Budget(**{limit: 0.5}))

    def test_is_a_fraction(self):
        with pytest.raises(ValueError, match="latency is a fraction"):
            Budget(latency=2.0)

    def test_files_are_timed_against_the_dense_one(self, monkeypatch):
        class Timing:
            ratio = 0.25

        class Timed:
            files = ("dense", Timing)

        monkeypatch.setattr(planning, "benchmark", lambda dense, path, runs: Timed)
        assert planning.latency_ratio("dense.tflite", "small.tflite") == 0.25


@pytest.fixture(scope="module")
def cut_off(trained, tmp_path_factory):
    """The folder of a call that was cut off before its first training."""
    folder = tmp_path_factory.mktemp("begun")
    with stopped(training.Fit, "train"):
        again(trained, folder / "model.tflite")
    return folder / "model.compress"


@pytest.fixture
def begun(cut_off, tmp_path):
    """Where the file of such a call was to go."""
    shutil.copytree(cut_off, tmp_path / "model.compress")
    return tmp_path / "model.tflite"


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"budget": Budget(macs=0.4)}, "budget: {'macs': 0.5} then, {'macs': 0.4} now"),
        ({"epochs": 5}, "epochs: 4 then, 5 now"),
        ({"options": options(steps=1)}, "steps: 2 then, 1 now"),
        ({"options": options(learning_rate=0.1)}, "learning_rate: 0.01 then, 0.1 now"),
        ({"data": arrays(60)}, "data: "),
        ({"validation": arrays(30, seed=3)}, "validation: "),
    ],
)
def test_refuses_to_go_on_with_other_arguments(trained, begun, no_work, changes, names):
    with pytest.raises(ValueError, match="restart=True") as caught:
        again(trained, begun, **changes)
    assert names in str(caught.value)


def test_refuses_to_go_on_with_another_model(begun, no_work):
    with pytest.raises(ValueError, match=r"other arguments.*model: "):
        again(network(), begun)


def test_restart_begins_anew(trained, begun):
    with stopped(training.Fit, "train"):
        again(trained, begun, epochs=5, options=options(restart=True))
    state = json.loads((begun.with_suffix(".compress") / "state.json").read_text())
    assert state["settings"]["epochs"] == 5


def test_a_damaged_state_is_named(trained, begun, no_work):
    (begun.with_suffix(".compress") / "state.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        again(trained, begun)


def test_a_folder_of_others_is_left_alone(trained, no_work, tmp_path):
    (tmp_path / "model.compress").mkdir()
    (tmp_path / "model.compress" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        again(trained, tmp_path / "model.tflite", options=options(restart=True))
    assert (tmp_path / "model.compress" / "thesis.txt").exists()


def test_a_file_that_is_not_ours_stays(trained, no_work, tmp_path):
    (tmp_path / "model.tflite").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        again(trained, tmp_path / "model.tflite")
    assert not (tmp_path / "model.compress").exists()


def with_nan(model):
    model.get_layer("classes").bias.assign([np.nan, 0, 0])
    return model


def frozen():
    """The outputs cannot be pruned, and there is nothing else."""
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Flatten(), L.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def uncompiled():
    return keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 3), L.Flatten(), L.Dense(3)])


def regressor():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 3), L.Flatten(), L.Dense(1)])
    model.compile("sgd", "mse")
    return model


X, Y = arrays()
NAN = np.where(np.arange(len(X))[:, None, None, None] == 5, np.nan, X)
DATASET = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    ("make", "changes", "error", "message"),
    [
        (uncompiled, {}, ValueError, "not compiled.*model.compile"),
        (lambda: with_nan(network()), {}, ValueError, "classes/bias.*Train it anew"),
        (frozen, {}, ValueError, "No channel of .* can be removed"),
        (regressor, {}, ValueError, "Accuracy is of outputs with a number for each class"),
        (lambda: "model.keras", {}, TypeError, "Keras"),
        (network, {"budget": 0.5}, TypeError, r"tfprune.Budget\(macs=0.5\)"),
        (network, {"budget": Budget(macs=10)}, ValueError, "cannot be met. The smallest"),
        (network, {"epochs": 2}, ValueError, "at least 3.*steps=1"),
        (network, {"epochs": 1.5}, ValueError, "epochs must be a whole number"),
        (network, {"options": {"steps": 2}}, TypeError, "CompressOptions"),
        (network, {"data": (X[:, :5], Y)}, ValueError, r"expected arrays of shape \(samples, 6, 6, 1\)"),
        (network, {"data": (X, Y[:-1])}, ValueError, "differ in their number of samples"),
        (network, {"data": (X, np.eye(4)[Y])}, ValueError, "does not fit the loss"),
        (network, {"data": (NAN, Y)}, ValueError, "data holds NaN"),
        (network, {"validation": (NAN, Y)}, ValueError, "validation holds NaN"),
        (network, {"validation": (X, Y + 1)}, ValueError, "labels"),
        (network, {"data": (X[:5], Y[:5]), "validation": None}, ValueError, "Of 5 samples none"),
        (network, {"data": DATASET.batch(8), "validation": None}, ValueError, "cannot be split"),
        (network, {"data": DATASET}, ValueError, "Batch the dataset"),
        (network, {"data": DATASET.batch(8).repeat()}, ValueError, "not known or endless"),
        (network, {"data": iter([(X, Y)])}, TypeError, "read again and again"),
    ],
)
def test_errors_come_before_the_training(make, changes, error, message, no_work, tmp_path):
    with pytest.raises(error, match=message):
        again(make(), tmp_path / "model.tflite", **changes)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"min_channels": 0},
        {"round_to": 1.5},
        {"learning_rate": 0.0},
        {"batch_size": True},
        {"max_drop": -1},
        {"seed": -1},
    ],
)
def test_options_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CompressOptions(**wrong)


def test_switches_are_no_words():
    with pytest.raises(TypeError, match=r"teacher must be True or False\. Received: 'no'"):
        CompressOptions(teacher="no")


def test_a_loss_that_becomes_nan_stops_and_keeps_what_was_good(trained, tmp_path):
    with pytest.raises(RuntimeError, match=r"loss became nan in epoch 1 of 'prune-1'.*lower rate"):
        again(trained, tmp_path / "model.tflite", options=options(learning_rate=1e30))
    assert not list(tmp_path.glob("model.compress/**/*.h5"))


@pytest.mark.parametrize(
    ("rate", "highest"),
    [
        (0.25, 0.25),
        (keras.optimizers.schedules.CosineDecay(0.5, 10), 0.5),  # has ended
        (keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=0.125, warmup_steps=50), 0.125),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_the_rate_is_that_of_the_compiled_model(rate, highest, scaled):
    model = network()
    optimizer = keras.optimizers.SGD(rate)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse")
    optimizer.iterations.assign(1000)
    assert steps.initial_rate(model, 5) == pytest.approx(highest, rel=0.02)


def test_a_rate_of_zero_is_an_error():
    model = network()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    with pytest.raises(ValueError, match="learning rate of 0"):
        steps.initial_rate(model, 5)


@pytest.mark.slow
def test_datasets_train_too(trained, quick, tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]

    report = again(
        trained,
        tmp_path / "model.tflite",
        data=DATASET.batch(30),
        validation=Batches(workers=0),
        epochs=2,
        options=options(steps=1, io_dtype="uint8"),
    )
    assert [str(details.dtype) for details in TFLiteModel(tmp_path / "model.tflite").inputs] == ["uint8"]
    assert report.phases[0].score > 0.9


def test_arrays_are_split_once_and_for_all():
    first, second = (prepare(network(), (X, Y), None, 0) for _ in range(2))
    assert len(first.validation[1]) == 9
    assert same(first.validation[:1], second.validation[:1])
    rows = {array.tobytes() for part in (first.training, first.validation) for array in part[0]}
    assert rows == {array.tobytes() for array in X}
    assert "set aside" in first.describe()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("sparse_categorical_crossentropy", [1, 0]),
        (keras.losses.CategoricalCrossentropy(from_logits=True), [[0, 1, 0], [1, 0, 0]]),
        ("binary_crossentropy", [[0, 1, 0], [1, 0, 0]]),
        (keras.losses.BinaryCrossentropy(from_logits=True), [[1, 1, 0], [1, 0, 0]]),
        ("mse", [[0.25, 2.0, -1.0], [3.0, 0.0, -2.0]]),
    ],
)
def test_without_labels_the_model_says_what_they_are(loss, expected):
    model = keras.Sequential([keras.Input((3,)), L.Identity()])
    model.compile(loss=loss)
    found = answers.answers(model, np.array([[0.25, 2.0, -1.0], [3.0, 0.0, -2.0]], "float32"))
    assert found.tolist() == expected


def test_a_part_of_unlabelled_data_is_set_aside_with_answers(trained):
    x, _ = arrays()
    prepared = dataclasses.replace(prepare(trained, (x, answers.answers(trained, x)), None, seed=0), answered=True)
    assert [len(part) for part in (*prepared.training, *prepared.validation)] == [81, 81, 9, 9]
    assert Validation(prepared.validation, None).score(trained) == 1.0
    assert "on the dense model's own answers" in prepared.describe()


@pytest.mark.slow
def test_unlabelled_data_is_compressed_by_what_the_dense_model_answers(trained, quick, tmp_path):
    report = again(
        trained, tmp_path / "model.tflite", data=arrays()[0], validation=None, epochs=2, options=options(steps=1)
    )
    assert report.phases[0].score == 1.0  # it agrees with itself
    assert report.phases[-1].score > 0.6
    assert "on the dense model's own answers" in report.validation


def test_compress_is_the_function_whatever_is_imported():
    for path in Path(compressor.__file__).parent.glob("*.py"):
        importlib.import_module("tfprune.drivers.compression" + ("" if path.stem == "__init__" else f".{path.stem}"))
    assert callable(tfprune.compress)
    assert tfprune.compress is compressor.compress


@pytest.mark.sampled(1)
@pytest.mark.parametrize("how", ["name", "instance", "scaled"])
def test_each_training_has_its_own_rate_and_the_compiled_optimizer(how, tmp_path):
    model = keras.Sequential([keras.Input((2,)), L.Dense(3)])
    own = keras.optimizers.SGD(0.5, momentum=0.75)
    given = {"name": "sgd", "instance": own, "scaled": keras.optimizers.LossScaleOptimizer(own, initial_scale=4.0)}
    model.compile(given[how], "mse", run_eagerly=True)
    training.Fit((np.ones((5, 2)), np.ones((5, 3))), 2, 0.25, arguments={"batch_size": 1}).start(model)
    assert type(model.optimizer) is type(keras.optimizers.get(given[how]))
    inner = model.optimizer.inner_optimizer if how == "scaled" else model.optimizer
    assert inner.momentum == (0.0 if how == "name" else 0.75)
    assert getattr(model.optimizer, "initial_scale", 4.0) == 4.0
    assert float(model.optimizer.learning_rate) == 0.25
    model.fit(np.ones((10, 2)), np.ones((10, 3)), batch_size=1, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-6)
    # TensorFlow cannot save an optimizer whose rate became a schedule after it was made.
    tfprune.export(model, tmp_path / "model.tflite")


def test_several_inputs_by_name(quick, tmp_path):
    image, number = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="number")
    x = L.Flatten()(L.Conv2D(4, 3, activation="relu")(image))
    model = keras.Model([image, number], L.Dense(3)(L.Concatenate()([x, L.Dense(4)(number)])))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    data = {"image": X, "number": np.eye(2, dtype="float32")[Y % 2]}, Y
    again(model, tmp_path / "model.tflite", data=data, validation=None, epochs=2, options=options(steps=1))
    assert {details.name for details in TFLiteModel(tmp_path / "model.tflite").inputs} == {"image", "number"}
