"""Runs of phases: nothing is lost wherever they are cut off, what differs is refused, and the next phase may depend."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import same as equal
from toy_run import DATA, SETTINGS, count, follow, network, phases, same, state_of

from tfprune.data.fingerprints import model_fingerprint
from tfprune.drivers.display import Display
from tfprune.drivers.fingerprints import data_fingerprint
from tfprune.drivers.folder import Folder
from tfprune.drivers.phases import Phase
from tfprune.drivers.randomness import draw_seed, seed_everything
from tfprune.drivers.runs import Run
from tfprune.drivers.training import Fit, Function


class CutOffError(Exception):
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a run that was not cut off; and its records and state."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return path, follow(path)


@pytest.fixture(scope="module")
def whole(done):
    """Records and state of a run that was not cut off."""
    return done[1]


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert equal(found[1][0], expected[1][0])
    assert equal(found[1][1], expected[1][1])


def test_phases_follow_each_other(whole):
    records, (weights, _) = whole
    assert [record.name for record in records] == ["prune", "train", "nothing"]
    assert [len(record.history) for record in records] == [2, 2, 0]
    # 12 x 4 and 4 of Dense, 4 x 4 of BatchNormalization, 4 x 3 and 3 of Dense.
    assert [record.facts["weights"] for record in records] == [48 + 4 + 16 + 12 + 3] * 3
    assert {"loss", "sparsity"} <= set(records[1].history[-1])
    assert sum(np.count_nonzero(weight == 0) for weight in weights) >= (48 + 12) // 2


def test_what_was_done_is_not_done_again(done, tmp_path, monkeypatch):
    path, whole = done
    shutil.copytree(path, tmp_path / "run")
    monkeypatch.setattr(Fit, "train", lambda *_: pytest.fail("trained again"))
    assert_same(follow(tmp_path / "run"), whole)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"state.json", "prune.keras", "train.keras", "nothing.keras"}


class CutOff(keras.callbacks.Callback):
    """Ends everything at some batch, counted over all phases."""

    def __init__(self, batch, how):
        super().__init__()
        self.batch, self.how = batch, how

    def on_train_batch_end(self, batch, logs=None):
        self.batch -= 1
        if self.batch == 0:
            self.how()


def cut_off():
    raise CutOffError


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("batch", [1, 4, 6])  # of two in each of two epochs, then one in each of two
def test_goes_on_after_any_batch(whole, tmp_path, batch):
    with pytest.raises(CutOffError):
        follow(tmp_path / "run", [CutOff(batch, cut_off)])
    assert_same(follow(tmp_path / "run", [CutOff(0, cut_off)]), whole)


@contextlib.contextmanager
def cut_off_after_write(monkeypatch, nth):
    """End everything after the nth renaming of a file."""
    original, calls = Path.replace, []

    def replace(self, target):
        calls.append(1)
        found = original(self, target)
        if len(calls) == nth:
            raise CutOffError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        yield


def test_goes_on_after_any_write(whole, tmp_path, monkeypatch):
    found, interruptions = None, 0
    while found is None:
        # By turns after the first, which may have to be done again, and after the one behind it.
        with contextlib.suppress(CutOffError), cut_off_after_write(monkeypatch, 1 + interruptions % 2):
            found = follow(tmp_path / "run")
        interruptions += 1
        assert interruptions < 50
    # The state is written 1 + 3 x 2 times, each model with its logs, and a backup with its logs after 1 + 1 epochs.
    assert interruptions > 7 + 3 * 2 + 2 * 2
    assert_same(found, whole)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("writer", "nth"), [("save", 1), ("save", 3), ("save_weights", 1), ("save_weights", 2)])
def test_nothing_is_lost_where_the_disk_is_full(whole, tmp_path, monkeypatch, writer, nth):
    calls = []
    original = getattr(keras.Model, writer)

    def half(self, filepath, **kwargs):
        calls.append(1)
        if len(calls) < nth:
            return original(self, filepath, **kwargs)
        Path(filepath).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, writer, half)
        with pytest.raises(OSError, match=rf"Cannot write '{tmp_path}.*No space left on device\. Free some room"):
            follow(tmp_path / "run")
    assert all(path.read_bytes() != b"half" for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert_same(follow(tmp_path / "run"), whole)


class Removing(keras.callbacks.Callback):
    """Removes the folder of the run in the middle of a phase, and puts another in its place if told to."""

    def __init__(self, path, replaced):
        super().__init__()
        self.path, self.replaced = path, replaced

    def on_epoch_begin(self, epoch, logs=None):
        shutil.rmtree(self.path)
        if self.replaced:
            self.path.mkdir()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_is_named(tmp_path, replaced):
    path = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match=rf"The folder '{path}' was removed or replaced .* repeat the call"):
        follow(path, [Removing(path, replaced)])
    assert not any(each.name == "state.json" for each in tmp_path.rglob("*"))


KILLED = """
import sys
from pathlib import Path
from test_runs import CutOff, kill
from toy_run import follow
follow(Path(sys.argv[1]), [CutOff(int(sys.argv[2]), kill)])
"""


@pytest.mark.slow
def test_goes_on_after_kills(whole, tmp_path):
    code = f"import sys; sys.path[:] = {sys.path!r}\n{KILLED}"
    for batch in (2, 4, 4, 1):
        command = [sys.executable, "-c", code, str(tmp_path / "run"), str(batch)]
        assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert_same(follow(tmp_path / "run", [CutOff(0, kill)]), whole)


@pytest.fixture(scope="module")
def cut_off_once(tmp_path_factory):
    """A run that was cut off in its second phase."""
    path = tmp_path_factory.mktemp("cut-off") / "run"
    with pytest.raises(CutOffError):
        follow(path, [CutOff(6, cut_off)])
    return path


class TestOtherSettings:
    @pytest.fixture
    def begun(self, cut_off_once, tmp_path):
        """A copy of it."""
        return shutil.copytree(cut_off_once, tmp_path / "run")

    def wanted(self, **changes):
        return phases([CutOff(0, cut_off)], **changes)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: p[1:], "phase 1: prune then, train now"),
            (lambda p: [p[1], p[0]], "phase 1: prune then, train now"),
            (lambda p: [p[0], Phase("train", same)], "train: epochs: 2 then, None now"),
            (lambda p: [Phase("prune", same, p[0].training, seed=6), p[1]], "prune: seed: 5 then, 6 now"),
            (
                lambda p: [Phase("prune", same, p[0].training, seed=5, settings={"to": 1})],
                "prune: to: None then, 1 now",
            ),
            (lambda p: [p[0], Phase("train", same, Fit(DATA, 2, 0.5))], "train: learning_rate: None then, 0.5 now"),
        ],
    )
    def test_of_a_phase(self, begun, monkeypatch, change, message):
        monkeypatch.setattr(Fit, "train", lambda *_: pytest.fail("trained before it had checked"))
        with pytest.raises(ValueError, match="restart=True") as caught:
            follow(begun, wanted=change(self.wanted()))
        assert message in str(caught.value)

    def test_of_epochs(self, begun):
        with pytest.raises(ValueError, match=r"\(prune: epochs: 2 then, 4 now\)"):
            follow(begun, wanted=self.wanted(epochs=(4, 2)))

    def test_of_the_run(self, begun):
        with pytest.raises(ValueError, match=r"\(data: 1 then, 2 now\)"):
            Run(begun, {**SETTINGS, "data": 2}).__enter__()
        Run(begun, SETTINGS).__enter__().__exit__(None, None, None)  # the refused one does not hold the folder

    def test_later_phases_may_be_added(self, begun, whole):
        more = Phase("more", same, facts=count, seed=8)
        records, state = follow(begun, wanted=[*self.wanted(), more])
        assert records[:-1] == whole[0]
        assert records[-1].facts["weights"] == whole[0][-1].facts["weights"]
        assert equal(state[0], whole[1][0])


def rounds(run, watch=()):
    """Halve the channels, and train, until few are left."""
    while not run.records or run.records[-1].facts["weights"] > 40:
        number = len(run.records) + 1
        prepare = phases()[0].prepare
        yield Phase(f"round-{number}", prepare, Fit(DATA, 1, 0.01, lambda: list(watch)), count, seed=number)


def test_facts_decide_which_phase_comes_next(tmp_path):
    def run_rounds(path, watch):
        with Run(path, SETTINGS) as run:
            models = [model for _, model in run.follow(rounds(run, watch), network())]
            return run.records, state_of(models[-1])

    expected = run_rounds(tmp_path / "whole", [CutOff(0, cut_off)])
    assert [record.facts["weights"] for record in expected[0]] == [83, 43, 23]  # 20 for each channel, and 3
    with pytest.raises(CutOffError):
        run_rounds(tmp_path / "run", [CutOff(2, cut_off)])
    assert_same(run_rounds(tmp_path / "run", [CutOff(0, cut_off)]), expected)


def clone(model):
    copy = network()
    copy.set_weights(model.get_weights())
    return copy


class TestStopping:
    def training(self, watch=(), **changes):
        return Fit(DATA, 6, 0.05, lambda: list(watch), **changes)

    def follow(self, path, training):
        return follow(path, wanted=[Phase("train", clone, training, seed=3), Phase("after", same, facts=count)])

    def test_by_a_rule_on_the_logs_so_far(self, tmp_path):
        def stop(history):
            return len(history) >= 3 and history[0]["loss"] < 10

        expected = self.follow(tmp_path / "whole", self.training([CutOff(0, cut_off)], stop=stop))
        assert len(expected[0][0].history) == 3
        for batch in (1, 2):  # in the first epoch, then in the third
            with pytest.raises(CutOffError):
                self.follow(tmp_path / "run", self.training([CutOff(batch, cut_off)], stop=stop))
        assert_same(self.follow(tmp_path / "run", self.training([CutOff(0, cut_off)], stop=stop)), expected)

    def test_by_a_callback_with_a_memory_of_its_own(self, tmp_path):
        def training(batch):
            watch = [keras.callbacks.EarlyStopping("loss", patience=1, min_delta=10.0), CutOff(batch, cut_off)]
            return self.training(watch, backups=False)

        expected = self.follow(tmp_path / "whole", training(0))
        assert len(expected[0][0].history) == 2
        with pytest.raises(CutOffError):
            self.follow(tmp_path / "run", training(2))
        assert_same(self.follow(tmp_path / "run", training(0)), expected)


class TestFunction:
    def follow(self, path, watch, optimizer):
        def train(model):
            if optimizer:
                model.compile(optimizer, "mse", run_eagerly=True)
            target = keras.utils.to_categorical(DATA[1], 3) if optimizer else DATA[1]
            model.fit(DATA[0], target, epochs=2, callbacks=watch, verbose=0)

        return follow(
            path, wanted=[Phase("own", clone, Function(train, {"rounds": 1}), count, seed=2), phases(watch)[1]]
        )

    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("optimizer", [None, "adam"])
    def test_goes_on_with_the_same_weights_and_optimizer(self, tmp_path, optimizer):
        expected = self.follow(tmp_path / "whole", [CutOff(0, cut_off)], optimizer)
        for batch in (2, 3):  # inside, so that it is called again; then in the phase behind it, so that it is not
            with pytest.raises(CutOffError):
                self.follow(tmp_path / "run", [CutOff(batch, cut_off)], optimizer)
        assert_same(self.follow(tmp_path / "run", [CutOff(0, cut_off)], optimizer), expected)

    def test_its_settings_count(self, tmp_path):
        self.follow(tmp_path / "run", [], None)
        with pytest.raises(ValueError, match="own: rounds: 1 then, 2 now"):
            follow(tmp_path / "run", wanted=[Phase("own", same, Function(print, {"rounds": 2}), seed=2)])


class TestFolder:
    def test_two_runs_in_one_are_refused(self, tmp_path):
        with Run(tmp_path / "run", SETTINGS):
            with pytest.raises(RuntimeError, match="Another run works in"):
                Run(tmp_path / "run", SETTINGS).__enter__()
            with pytest.raises(RuntimeError, match="Another run works in"):
                Run(tmp_path / "run", SETTINGS, restart=True).__enter__()
        with Run(tmp_path / "run", SETTINGS) as run:
            assert run.goes_on

    def test_of_something_else_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        for restart in (False, True):
            with pytest.raises(ValueError, match="holds something else"):
                Run(tmp_path, SETTINGS, restart=restart).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_file_in_its_place(self, tmp_path):
        (tmp_path / "run").write_text("mine")
        with pytest.raises(OSError, match="Cannot write"):
            Run(tmp_path / "run", SETTINGS).__enter__()

    def test_restart_deletes_what_is_there_even_if_it_is_cut_off(self, whole, tmp_path, monkeypatch):
        path = tmp_path / "run"
        follow(path, wanted=phases(epochs=(1, 1)))
        with monkeypatch.context() as patch:
            original = Path.unlink
            is_model = lambda path: path.suffix == ".keras"  # noqa: E731
            patch.setattr(Path, "unlink", lambda path, **how: cut_off() if is_model(path) else original(path, **how))
            with pytest.raises(CutOffError):
                Run(path, SETTINGS, restart=True).__enter__()
        assert (path / "prune.keras").exists()
        assert_same(follow(path), whole)

    def test_a_damaged_state_is_named(self, tmp_path):
        (tmp_path / "state.json").write_text('{"settings": {}}')
        with pytest.raises(ValueError, match=r"state\.json.*is damaged.*phases"):
            Run(tmp_path, SETTINGS, restart=False).__enter__()
        with Run(tmp_path, SETTINGS, restart=True) as run:
            assert not run.goes_on

    def test_notes_are_kept(self, tmp_path):
        with Run(tmp_path / "run", SETTINGS) as run:
            run.note(macs=12, limits={"macs": 0.5})
        assert Folder(tmp_path / "run", "").notes == {"macs": 12, "limits": {"macs": 0.5}}
        assert Folder(tmp_path / "other", "").notes == {}
        with Run(tmp_path / "run", SETTINGS) as run:
            assert run.notes["macs"] == 12


def test_progress_is_told(tmp_path, capsys):
    follow(tmp_path / "run", display=Display(True))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.split(" (")[0] for line in lines] == [
        "[1/3] prune, epochs: 2, learning rate: 0.05",
        "[2/3] train, epochs: 2",
        "[3/3] nothing",
    ]
    assert "of training left" in lines[1]
    assert "about 0:00:00 of training left" in lines[2]
    with Run(tmp_path / "run", SETTINGS, display=Display(True)) as run:
        list(run.follow(iter(phases()[:1]), network()))
    said = capsys.readouterr().err
    assert f"Going on with {tmp_path / 'run'}" in said
    assert "[1] prune, epochs: 2, learning rate: 0.05: done before" in said


def test_epochs_that_a_rule_saved_are_not_waited_for():
    display = Display(False, 2)
    display.plan(2, 10)
    display.begin("first", 8)
    display.epoch_done("", 1.0)
    assert display.epochs_left == 9
    display.begin("second", 2)
    assert display.epochs_left == 2


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "round/1"])
def test_names_are_for_files(name):
    with pytest.raises(ValueError, match="part of file names"):
        Phase(name, same)


def test_names_are_one_of_their_kind(tmp_path):
    with pytest.raises(ValueError, match="Two phases of a run are called 'nothing'"):
        follow(tmp_path / "run", wanted=[Phase("nothing", same), Phase("other", same), Phase("nothing", same)])
    with Run(tmp_path / "two", SETTINGS) as run:
        run.do(Phase("nothing", same), network())
        with pytest.raises(ValueError, match="Two phases of a run are called 'nothing'"):
            run.do(Phase("nothing", same), network())


def test_facts_are_plain_values(tmp_path):
    with pytest.raises(TypeError, match="as JSON has them"):
        follow(tmp_path / "run", wanted=[Phase("wrong", same, facts=lambda model: {"model": model})])
    records, _ = follow(tmp_path / "run", wanted=[Phase("wrong", same, facts=lambda model: {"shape": (1, 2)})])
    assert records[0].facts == {"shape": [1, 2]}  # as they are read back


class TestFit:
    def test_arguments_reach_fit(self, tmp_path):
        arguments = {"validation_data": DATA[:2], "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}
        records, _ = follow(
            tmp_path / "run", wanted=[Phase("train", clone, Fit(DATA[:2], 1, 0.1, arguments=arguments))]
        )
        assert "val_loss" in records[0].history[0]
        settings = json.loads((tmp_path / "run" / "state.json").read_text())["phases"]["train"]["settings"]
        assert settings["class_weight"] == {"0": 1.0, "1": 2.0, "2": 0.5}
        assert settings["validation_data"] == data_fingerprint(DATA[:2])

    @pytest.mark.parametrize("wrong", ["epochs", "callbacks", "initial_epoch", "epoch", "shuffle", "sample_weight"])
    def test_those_of_the_run_are_refused(self, wrong):
        with pytest.raises(ValueError, match=f"Got: \\['{wrong}'\\]"):
            Fit(DATA, 1, arguments={wrong: 1})

    def test_a_rate_cannot_be_planned_without_a_length(self):
        endless = tf.data.Dataset.from_tensor_slices(DATA).batch(8).repeat()
        with pytest.raises(ValueError, match="length of the data is not known"):
            Fit(endless, 2, 0.1)
        Fit(endless, 2, 0.1, arguments={"steps_per_epoch": 3})
        with pytest.raises(ValueError, match="batch_size is for arrays"):
            Fit(endless, 2, arguments={"batch_size": 3})

    @pytest.mark.parametrize("data", [list(DATA), DATA[0], iter([DATA])])
    def test_data_that_cannot_be_told_apart_or_read_again(self, data):
        with pytest.raises(TypeError, match="data must be a tuple"):
            Fit(data, 1)

    def test_the_rate_falls_to_zero(self, tmp_path):
        rates = []

        class Rates(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                rates.append(float(self.model.optimizer.learning_rate))

        training = Fit(DATA, 2, 0.5, lambda: [Rates()], arguments={"batch_size": 12})
        follow(tmp_path / "run", wanted=[Phase("train", clone, training)])
        assert rates == pytest.approx([0.25 * (1 + np.cos(np.pi * step / 4)) for step in range(4)])

    def test_a_schedule_is_taken_as_it_is(self, tmp_path):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.5, 0.25])
        training = Fit(DATA, 1, schedule)
        assert training.settings()["learning_rate"]["class_name"] == "PiecewiseConstantDecay"
        model = network()
        training.start(model)
        assert float(model.optimizer.learning_rate) == 0.5

    def test_a_model_that_is_not_compiled(self, tmp_path):
        plain = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3)])
        with pytest.raises(ValueError, match="not compiled"):
            follow(tmp_path / "run", wanted=[Phase("train", lambda _: plain, Fit(DATA, 1))])

    def test_a_loss_that_is_not_a_number(self, tmp_path):
        wrong = (np.full_like(DATA[0], np.nan), DATA[1])
        with pytest.raises(RuntimeError, match=r"loss became nan in epoch 1 of 'train'.*lower rate"):
            follow(tmp_path / "run", wanted=[Phase("train", clone, Fit(wrong, 2, 0.1))])


def test_layers_draw_the_same_after_the_same_seed():
    model = network()
    seed_everything(4, model)
    first = model(DATA[0], training=True)
    assert not np.array_equal(first, model(DATA[0], training=True))
    seed_everything(4, model)
    assert np.array_equal(first, model(DATA[0], training=True))
    assert len({draw_seed(*place) for place in [(1, 0), (1, 1), (2, 0), (1, 0, 1), (1, 0, 2)]}) == 5


def test_fingerprints_tell_models_and_data_apart():
    model = network()
    before = model_fingerprint(model)
    assert before == model_fingerprint(clone(model))
    model.layers[0].bias.assign(np.eye(8)[0])
    assert before != model_fingerprint(model)
    assert data_fingerprint(DATA) == data_fingerprint(tuple(array.copy() for array in DATA))
    assert data_fingerprint(DATA)["samples"] == 24
    changed = DATA[0].copy()
    changed[3, 4] += 1e-6
    assert data_fingerprint((changed, *DATA[1:])) != data_fingerprint(DATA)
    dataset = tf.data.Dataset.from_tensor_slices(DATA).batch(10)
    assert data_fingerprint(dataset)["batches"] == 3
