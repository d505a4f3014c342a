"""Each command on what it is for: what it prints, writes and leaves alone, as text and as JSON."""

import json

import keras
import numpy as np
import pytest
from networks import chain, images, randomize

import tfprune
from tfprune.tflite.unpacking import pack, unpack
from tfprune_cli import main


def as_json(run, *arguments):
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("name", ["model.keras", "old.h5"])
def test_profile_of_a_keras_model(run, files, tmp_path, name):
    path = files / name
    if name == "old.h5":
        path = tmp_path / name
        keras.models.load_model(files / "model.keras").save(path)
    expected = tfprune.profile(keras.models.load_model(files / "model.keras"))
    found = as_json(run, "profile", path)
    assert (found["parameters"], found["macs"]) == (expected.parameters, expected.macs)
    code, out, err = run("profile", path)
    assert (code, err) == (0, "")
    assert "second_bn" not in out
    assert all(word in out for word in ("first_bn", "BatchNormalization", f"{expected.macs:,}"))


def test_profile_of_a_file(run, files):
    found = as_json(run, "profile", files / "model.tflite")
    size = (files / "model.tflite").stat().st_size
    # Normalization is folded: 3x3x2x4 + 4, 3x3x4x6 + 6, 6x3 + 3; and twice the kernel at 8 and at 6 pixels.
    assert (found["file_bytes"], found["macs"]) == (size, 64 * 72 + 36 * 216 + 18)
    assert found["inputs"][0]["shape"] == [1, 8, 8, 2]
    assert found["outputs"][0]["dtype"] == "float32"
    assert {"name": "CONV_2D", "dtype": "float32", "count": 2} in found["operators"]
    code, out, err = run("profile", files / "model.tflite")
    assert (code, err) == (0, "")
    assert all(word in out for word in ("CONV_2D float32", "1 x 8 x 8 x 2 float32", f"{size:,} B"))


def test_profile_of_a_file_whose_parts_are_missing(run, files, tmp_path):
    model = unpack((files / "model.tflite").read_bytes())
    model.subgraphs[0].operators[0].outputs = None
    (tmp_path / "odd.tflite").write_bytes(pack(model))
    code, _, err = run("profile", tmp_path / "odd.tflite")
    assert code == 2
    assert "cut short or damaged" in err


def test_groups(run, files):
    found = as_json(run, "groups", files / "model.keras")
    assert [(group["name"], group["channels"], group["frozen"]) for group in found["groups"]] == [
        ("first", 4, []),
        ("second", 6, []),
        ("classes", 3, ["model output"]),
    ]
    assert "model output" in run("groups", files / "model.keras")[1]


def test_prune_to_a_ratio_and_recalibrate(run, files, tmp_path):
    out = tmp_path / "new" / "small.keras"
    found = as_json(run, "prune", files / "model.keras", out, "--ratio", "0.5", "--data", files / "data.npz")
    small = keras.models.load_model(out)
    assert [small.get_layer(name).filters for name in ("first", "second")] == [2, 3]
    assert found["after"]["parameters"] == small.count_params() < found["before"]["parameters"]
    assert found["recalibrated_on"] == 32
    again = tfprune.prune_channels(keras.models.load_model(files / "model.keras"), 0.5)
    tfprune.recalibrate(again, images()[0])
    for mine, library in zip(small.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(mine, library, rtol=1e-6)


def test_prune_to_a_budget_leaves_excluded_layers_alone(run, files, tmp_path):
    arguments = ["prune", files / "model.keras", tmp_path / "small.keras", "--macs", "0.8", "--criterion", "fpgm"]
    code, out, err = run(*arguments, "--exclude", "first", "--round-to", "2")
    assert (code, err) == (0, "")
    assert "MACs" in out
    small = keras.models.load_model(tmp_path / "small.keras")
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (4, 4)


def test_prune_says_what_it_warns_of(run, files, tmp_path):
    code, _, err = run("prune", files / "model.keras", tmp_path / "same.keras", "--ratio", "0.01")
    assert code == 0
    assert err.startswith("note: At a ratio of 0.01 no channel goes")
    assert err.count("\n") == 1


def test_nested_layer_is_excluded_by_the_name_that_profile_prints(run, tmp_path):
    inner = chain()
    inner.name = "inner"
    inputs = keras.Input((8, 8, 2))
    keras.Model(inputs, inner(inputs)).save(tmp_path / "nested.keras")
    assert "inner/first" in run("profile", tmp_path / "nested.keras")[1]
    arguments = ["prune", tmp_path / "nested.keras", tmp_path / "small.keras", "--ratio", "0.5"]
    assert run(*arguments, "--exclude", "inner/first")[0] == 0
    filters = [keras.models.load_model(tmp_path / "small.keras").get_layer("inner").get_layer(name).filters
               for name in ("first", "second")]  # fmt: skip
    assert filters == [4, 3]
    code, _, err = run(*arguments, "--overwrite", "--exclude", "first")
    assert code == 2
    assert "There is no layer 'first'" in err


def test_export_int8(run, files, tmp_path):
    out = tmp_path / "model.tflite"
    arguments = ["export", files / "model.keras", out, "--quantize", "int8", "--calibration", files / "x.npy"]
    found = as_json(run, *arguments, "--io", "uint8")
    assert (found["quantize"], found["io_dtype"], found["verified_on"]) == ("int8", "uint8", "32 calibration samples")
    assert found["file_bytes"] == out.stat().st_size


def test_export_needs_no_data_in_other_modes_and_overwrites_when_told(run, files, tmp_path):
    out = tmp_path / "model.tflite"
    out.write_text("older")
    code, text, err = run("export", files / "model.keras", out, "--quantize", "float16", "--overwrite")
    assert (code, err) == (0, "")
    assert all(word in text for word in ("float16", "random inputs", f"{out.stat().st_size:,} B"))


def test_export_puts_labels_into_the_file(run, tmp_path):
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))).save(tmp_path / "m.keras")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    arguments = ["export", tmp_path / "m.keras", tmp_path / "m.tflite", "--labels", tmp_path / "labels.txt"]
    assert run(*arguments, "--std", "255")[0] == 0
    assert b"cat\ndog" in (tmp_path / "m.tflite").read_bytes()
    code, _, err = run(*arguments[:-1], tmp_path / "none.txt", "--overwrite")
    assert code == 2
    assert "one class name a line" in err


@pytest.mark.parametrize(
    ("given", "needed"), [("--mean", "--labels"), ("--std", "--labels"), ("--max-samples", "--calibration")]
)
def test_export_refuses_what_would_say_nothing(run, files, tmp_path, given, needed):
    code, _, err = run("export", files / "model.keras", tmp_path / "m.tflite", given, "2")
    assert code == 2
    assert f"{given} says nothing without {needed}. Give both, or neither." in err
    assert list(tmp_path.iterdir()) == []


def test_export_that_does_not_match_is_not_written_and_exits_with_1(run, files, tmp_path):
    arguments = ["export", files / "model.keras", tmp_path / "model.tflite", "--quantize", "dynamic"]
    code, out, err = run(*arguments, "--tolerance", "1e-9")
    assert (code, out) == (1, "")
    assert err.startswith("error: The .tflite file does not compute what the Keras model computes")
    assert "--tolerance" in err
    assert list(tmp_path.iterdir()) == []


def test_several_inputs_are_read_by_name(run, tmp_path):
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.BatchNormalization()(keras.layers.Dense(4)(keras.layers.Concatenate()([left, right])))
    keras.Model([left, right], keras.layers.Dense(2)(joined)).save(tmp_path / "two.keras")
    random = np.random.default_rng(0)
    arrays = {"left": random.normal(size=(8, 2)), "right": random.normal(size=(8, 3))}
    np.savez(tmp_path / "two.npz", **arrays, y=np.arange(8) % 2)
    np.savez(tmp_path / "one.npz", x=arrays["left"])
    export = ["export", tmp_path / "two.keras", tmp_path / "two.tflite", "--quantize", "int8", "--calibration"]
    assert as_json(run, *export, tmp_path / "two.npz")["verified_on"] == "8 calibration samples"
    prune = ["prune", tmp_path / "two.keras", tmp_path / "small.keras", "--ratio", "0.5", "--data"]
    assert as_json(run, *prune, tmp_path / "two.npz")["recalibrated_on"] == 8
    code, _, err = run(*export, tmp_path / "one.npz", "--overwrite")
    assert code == 2
    assert "has the arrays ['x']; the model takes 'left' and 'right'" in err


def test_bench(run, files):
    found = as_json(run, "bench", files / "model.tflite", "--runs", "3", "--threads", "2")
    assert (found["runs"], found["num_threads"], found["files"][0]["ratio"]) == (3, 2, 1.0)
    assert "median ms" in run("bench", files / "model.tflite", "--runs", "1")[1]


def test_compare_with_a_picture(run, files, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["compare", files / "model.keras", files / "model.tflite", "--data", files / "data.npz", "--runs", "1"]
    code, out, err = run(*arguments, "--picture", tmp_path / "picture.svg", "--json")
    assert (code, err) == (0, f"wrote {tmp_path / 'picture.svg'}\n")
    found = json.loads(out)
    assert [row["name"] for row in found["models"]] == ["model.keras", "model.tflite"]
    assert found["num_samples"] == 32
    assert (tmp_path / "picture.svg").read_text().startswith("<?xml")


def test_compare_names_files_of_the_same_name_by_their_paths(run, files, tmp_path):
    (tmp_path / "model.tflite").write_bytes((files / "model.tflite").read_bytes())
    paths = [files / "model.tflite", tmp_path / "model.tflite"]
    found = as_json(run, "compare", *paths, "--data", files / "data.npz", "--runs", "1", "--max-samples", "5")
    assert [row["name"] for row in found["models"]] == [str(path) for path in paths]
    assert found["num_samples"] == 5
    code, _, err = run("compare", paths[0], paths[0], "--data", files / "data.npz")
    assert code == 2
    assert "is given twice" in err


def test_report_writes_a_page(run, files, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    (tmp_path / "log.csv").write_text("epoch,accuracy,loss\n0,0.5,1.0\n1,0.75,0.5\n")
    arguments = ["report", files / "model.keras", files / "model.tflite", "--out", tmp_path / "page.html"]
    found = as_json(run, *arguments, "--history", tmp_path / "log.csv")
    page = (tmp_path / "page.html").read_text()
    assert (found["models"], found["file_bytes"]) == (["model.keras", "model.tflite"], len(page.encode()))
    assert "model.tflite" in page
    (tmp_path / "bad.json").write_text("[1, 2")
    code, _, err = run(*arguments, "--overwrite", "--history", tmp_path / "bad.json")
    assert code == 2
    assert "bad.json" in err
    assert err.count("\n") == 1


def test_unsafe_runs_code_that_is_in_the_file(run, files, tmp_path):
    assert as_json(run, "profile", files / "lambda.keras", "--unsafe")["macs"] == 6
    assert run("export", files / "lambda.keras", tmp_path / "m.tflite", "--unsafe")[0] == 0


def test_models_of_the_library_load(run, tmp_path):
    model = tfprune.quantize_aware(randomize(chain()))
    model(np.zeros((1, 8, 8, 2), "float32"))
    model.save(tmp_path / "aware.keras")
    code, _, err = run("export", tmp_path / "aware.keras", tmp_path / "m.tflite", "--quantize", "float16")
    assert code == 2
    assert "quantize-aware" in err
    assert "tfprune.strip(model) in Python" in err


WRITING = {
    "prune": ["prune", "{files}/model.keras", "{out}", "--ratio", "0.5"],
    "compress": ["compress", "{files}/model.keras", "--data", "{files}/x.npy", "--budget", "file=5k", "--out", "{out}"],
    "export": ["export", "{files}/model.keras", "{out}"],
    "report": ["report", "{files}/model.keras", "--out", "{out}"],
    "compare": ["compare", "{files}/model.keras", "--data", "{files}/data.npz", "--picture", "{out}"],
}
SUFFIXES = {"prune": ".keras", "compress": ".tflite", "export": ".tflite", "report": ".html", "compare": ".png"}


@pytest.mark.parametrize("command", WRITING)
def test_what_is_there_already_is_refused_before_the_work(capsys, files, tmp_path, monkeypatch, command):
    monkeypatch.setattr("tfprune_cli.command.importlib.import_module", lambda name: pytest.fail("work was begun"))
    out = tmp_path / f"there{SUFFIXES[command]}"
    out.write_text("mine")
    assert main([part.format(files=files, out=out) for part in WRITING[command]]) == 2
    assert "Pass --overwrite to replace it" in capsys.readouterr().err
    assert out.read_text() == "mine"


@pytest.mark.parametrize("command", WRITING)
def test_wrong_ending_of_the_output_is_refused_before_the_work(run, files, tmp_path, monkeypatch, command):
    monkeypatch.setattr("tfprune_cli.command.importlib.import_module", lambda name: pytest.fail("work was begun"))
    code, _, err = run(*(part.format(files=files, out=tmp_path / "out.txt") for part in WRITING[command]))
    assert code == 2
    assert f"out{SUFFIXES[command]}'" in err
