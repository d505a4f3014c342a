"""The quickstart works in small, writes what it says, and refuses what it cannot do before it trains."""

import argparse
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import quickstart

import tfprune

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """Two classes that differ in brightness, sorted by class."""
    y = np.repeat([0, 1], 40)
    x = np.random.default_rng(0).integers(0, 100, (80, 12, 12)) + 150 * y[:, None, None]
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, x=x.astype("uint8"), y=y)
    return path


@pytest.fixture(scope="module")
def folder(npz, tmp_path_factory):
    """What a run writes: a quarter of the width, steps that are not traced, since there is one of them, few timings."""
    out, conv = tmp_path_factory.mktemp("runs") / "new" / "folder", quickstart.conv
    with pytest.MonkeyPatch.context() as patch, quickstart.console.capture() as capture:
        patch.setattr(quickstart, "conv", lambda x, filters, strides=1: conv(x, filters // 4, strides))
        patch.setattr(keras.Model, "run_eagerly", property(lambda model: True, lambda model, value: None))
        patch.setattr(tfprune, "benchmark", functools.partial(tfprune.benchmark, runs=3, warmup=1))
        quickstart.main(["--dataset", str(npz), "--epochs", "1", "--ratio", "0.25", "--seed", "3", "--out", str(out)])
    (out / "printed.txt").write_text(capture.get())
    return out


def test_writes_the_models_and_they_load_without_the_recipe(folder):
    dense = keras.models.load_model(folder / "dense.keras")
    pruned = keras.models.load_model(folder / "pruned.keras")
    assert pruned.count_params() < dense.count_params()
    assert {path.name for path in folder.glob("*.tflite")} == {
        "dense_float.tflite",
        "pruned_float.tflite",
        "pruned_int8.tflite",
    }


def test_report_matches_the_files(folder):
    report = json.loads((folder / "report.json").read_text())
    assert (report["epochs"], report["ratio"], report["seed"]) == (1, 0.25, 3)
    dense, pruned, int8 = report["files"]
    for row in report["files"]:
        assert row["file_bytes"] == Path(row["path"]).stat().st_size
        assert 0 <= row["accuracy"] <= 1
        assert row["median_ms"] > 0
    assert dense["ratio"] == 1
    assert dense["macs"] > pruned["macs"] == int8["macs"]
    assert dense["file_bytes"] > pruned["file_bytes"] > int8["file_bytes"]


def test_accuracy_in_the_report_is_that_of_the_keras_model(folder, npz):
    data = quickstart.load_images(str(npz))
    model = keras.models.load_model(folder / "dense.keras")
    expected = np.mean(model.predict(data.x_test, verbose=0).argmax(1) == data.y_test)
    dense = json.loads((folder / "report.json").read_text())["files"][0]
    assert dense["accuracy"] == pytest.approx(expected)


def test_prints_every_step_and_one_row_per_file_within_80_columns(folder):
    printed = (folder / "printed.txt").read_text()
    for number in range(1, 6):
        assert f"{number}/5 " in printed
    table = printed[printed.index("small.npz, seed 3") :]
    for name in ("dense_float", "pruned_float", "pruned_int8"):
        assert table.count(name) == 1
    assert max(len(line) for line in table.splitlines() if "_float" in line or "_int8" in line) <= 80
    assert "…" not in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--ratio", "1.2"], "--ratio must be a fraction from 0.05 to 0.95. Received: 1.2."),
        (["--ratio", "nan"], "--ratio must be a fraction"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--dataset", "mnist50k"], "There is no data set 'mnist50k'. Choose mnist5k,"),
        (["--dataset", "missing.npz"], "There is no file at 'missing.npz'"),
    ],
)
def test_bad_arguments_end_with_a_clear_message(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        quickstart.main(arguments)
    assert message in capsys.readouterr().err


def test_a_file_in_place_of_the_output_folder_is_an_error_before_training(npz, tmp_path, capsys):
    (tmp_path / "taken").touch()
    with pytest.raises(SystemExit, match="2"):
        quickstart.main(["--dataset", str(npz), "--out", str(tmp_path / "taken")])
    assert "taken" in capsys.readouterr().err


def test_help_explains_every_option(monkeypatch, capsys):
    parsers = []
    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser,
        "parse_args",
        lambda parser, *args, **kwargs: parsers.append(parser) or parse_args(parser, *args, **kwargs),
    )
    with pytest.raises(SystemExit, match="0"):
        quickstart.main(["--help"])
    options = {option: action.help for action in parsers[0]._actions for option in action.option_strings}
    assert {"--dataset", "--epochs", "--ratio", "--seed", "--out"} <= set(options)
    assert all(options.values())
    printed = capsys.readouterr().out
    assert all(option in printed for option in options)


def test_stays_short_enough_to_read():
    assert len((ROOT / "recipes" / "quickstart.py").read_text().splitlines()) <= 175
