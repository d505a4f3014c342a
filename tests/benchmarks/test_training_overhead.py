"""What benchmarks/training_overhead.py promises can fail, and it times what it says it times."""

import argparse
import json
import sys

import keras
import numpy as np
import pytest
import tables
import training_overhead
from _fits import Times, in_turns
from _shared import spread

from tfprune.callbacks import StaticSparsity
from tfprune.schedules import Cosine

PLAIN, AGAIN = training_overhead.PLAIN


def fit_times(overhead=1.0, control=1.0, count=4):
    taken = {PLAIN: 1.0, AGAIN: control, "RigL": overhead * (1 + control) / 2}
    return {name: Times([seconds] * count, [2 * seconds] * count) for name, seconds in taken.items()}


def failing(steps=1.0, control=1.0, update=1.0):
    measured = {
        "steps": {"net": training_overhead.summarize_steps([fit_times(steps, control)], num_batches=2)},
        "updates": {"net": {"SGD": {"update_over_step": {"RigL": spread([update])}}}},
        "tfmot": None,
    }
    return [claim.text for claim in training_overhead.check(measured) if not claim.holds]


def test_within_the_limits():
    assert failing(steps=1.019, control=1.01, update=1.5) == []


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"steps": 1.03}, "between updates"),
        ({"control": 1.03}, "too noisy"),
        ({"control": 0.97}, "too noisy"),
        ({"update": 1.6}, "of an update"),
    ],
)
def test_beyond_a_limit_fails(changes, promise):
    (text,) = failing(**changes)
    assert promise in text


def test_steps_by_hand():
    row = training_overhead.summarize_steps([fit_times(1.5, count=2), fit_times(1.5, count=3)], num_batches=2)
    assert row["overhead"]["RigL"] == {clock: spread([1.5] * 5) for clock in ("cpu", "wall")}
    assert row["plain_cpu_ms_per_batch"] == spread([500.0] * 5)
    assert row["added_cpu_ms_per_batch"]["RigL"] == spread([250.0] * 5)


def test_updates_by_hand():
    taken = {PLAIN: Times([2.0]), AGAIN: Times([4.0]), "SET": Times([4.5])}
    row = training_overhead.summarize_updates(taken, {"SET": [1.2]})
    step = 3.0 / training_overhead.PERIOD
    assert row["update_over_step"]["SET"].median == pytest.approx(1.2 / step)
    assert row["added_over_step"]["SET"].median == pytest.approx(1.5 / step)
    assert row["control"].median == 2.0


def small_fit(turn, callbacks, steps):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = np.ones((steps, 2)), np.ones((steps, 3))
    model.fit(x, y, batch_size=1, verbose=0, callbacks=[*callbacks, turn.callback()])


def test_fits_take_turns():
    order = []

    def fit(name, turn):
        note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: order.append(name))
        small_fit(turn, [note], steps=4)

    taken = in_turns({name: lambda turn, name=name: fit(name, turn) for name in "abc"}, num_batches=2)
    assert "".join(order) == "aabbcc" * 2
    assert {name: (len(times.cpu), len(times.wall)) for name, times in taken.items()} == dict.fromkeys("abc", (2, 2))


@pytest.mark.slow
def test_quick_run_writes_its_numbers_and_they_make_a_table(tmp_path, monkeypatch):
    out = tmp_path / "training_overhead.json"
    command = ["--quick", "--repeats", "1", "--pieces", "2", "--batches", "2", "--updates", "2", "--out", str(out)]
    status = training_overhead.main(command)
    result = json.loads(out.read_text())
    assert status == (0 if all(claim["holds"] for claim in result["claims"]) else 1)
    measured = result["measured"]
    steps, updates = measured["steps"]["tiny"], measured["updates"]["tiny"]
    assert list(steps["overhead"]) == list(training_overhead.BETWEEN)
    assert all(ratio["cpu"]["count"] == 2 and ratio["cpu"]["median"] > 0 for ratio in steps["overhead"].values())
    assert list(updates) == list(training_overhead.OPTIMIZERS)
    for row in updates.values():
        assert list(row["update_over_step"]) == list(training_overhead.UPDATING)
        assert all(ratio["count"] == 2 and ratio["median"] > 0 for ratio in row["update_over_step"].values())
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = tables.training_overhead().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| tiny, {name}" for name in [*training_overhead.BETWEEN, "none, twice", "MagnitudePruning, global", "SET"]
    ]


def test_an_update_in_a_timed_piece_is_no_measurement(monkeypatch):
    often = {"RigL": lambda: training_overhead.RigL(0.5, drop=Cosine(0.3, frequency=2))}
    monkeypatch.setattr(training_overhead, "BETWEEN", often)
    with pytest.raises(RuntimeError, match="RigL"):
        training_overhead.measure_steps(training_overhead.QUICK["tiny"], pieces=2, num_batches=2, seed=0)


def test_a_callback_that_never_updates_is_no_measurement(monkeypatch):
    monkeypatch.setattr(training_overhead, "UPDATING", {"never": lambda end: StaticSparsity(0.5)})
    with pytest.raises(RuntimeError, match="never"):
        training_overhead.measure_updates(training_overhead.QUICK["tiny"], "SGD", rounds=1, seed=0)


def test_quick_does_not_overwrite_the_results(capsys):
    with pytest.raises(SystemExit):
        training_overhead.main(["--quick"])
    assert "--out" in capsys.readouterr().err


def test_a_missing_peer_is_said_and_no_failure(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    options = argparse.Namespace(repeats=1, pieces=1, batches=1, seed=0)
    assert training_overhead._tfmot(options) is None
    assert "not installed" in capsys.readouterr().out


@pytest.mark.peers
@pytest.mark.filterwarnings("default")
def test_the_peer_is_measured_in_the_same_way():
    pytest.importorskip("tensorflow_model_optimization")
    taken = training_overhead.measure_tfmot(pieces=2, num_batches=1, seed=0)
    assert {name: len(times.cpu) for name, times in taken.items()} == {PLAIN: 2, AGAIN: 2, "prune_low_magnitude": 2}
