"""What cannot be used: one line on stderr, exit code 2, and nothing is written."""

import pytest

MODEL_COMMANDS = {
    "profile": ["profile", "{file}"],
    "groups": ["groups", "{file}"],
    "prune": ["prune", "{file}", "{out}.keras", "--ratio", "0.5"],
    "compress": ["compress", "{file}", "--out", "{out}.tflite", "--data", "{files}/data.npz", "--budget", "macs=0.5"],
    "export": ["export", "{file}", "{out}.tflite"],
    "compare": ["compare", "{file}", "--data", "{files}/data.npz"],
    "report": ["report", "{file}", "--out", "{out}.html"],
}
FILE_COMMANDS = {
    **{name: MODEL_COMMANDS[name] for name in ("profile", "compare", "report")},
    "bench": ["bench", "{file}"],
}
DATA_COMMANDS = {
    "prune": ["prune", "{files}/model.keras", "{out}.keras", "--ratio", "0.5", "--data", "{file}"],
    "compress": [
        "compress",
        "{files}/model.keras",
        "--out",
        "{out}.tflite",
        "--data",
        "{file}",
        "--budget",
        "macs=0.5",
    ],
    "export": ["export", "{files}/model.keras", "{out}.tflite", "--quantize", "int8", "--calibration", "{file}"],
    "compare": ["compare", "{files}/model.keras", "--data", "{file}", "--runs", "1"],
    "report": ["report", "{files}/model.keras", "--out", "{out}.html", "--data", "{file}"],
}
BAD_MODELS = {
    "missing.keras": "there is no file",
    "folder.keras": "is a folder",
    "empty.keras": "is empty",
    "png.keras": "is no .keras file, or is cut short",
    "text.keras": "is no .keras file, or is cut short",
    "truncated.keras": "is no .keras file, or is cut short",
    "other_zip.keras": "cannot load",
    "damaged.keras": "cannot load",
    "model.zip": "ends in .keras",
    "lambda.keras": "pass --unsafe",
    "custom.keras": "'Custom', whose code is not in the file",
    "empty.h5": "is empty",
    "png.h5": "is no .h5 file",
    "truncated.h5": "is no .h5 file",
    "only.weights.h5": "weights without the model",
}
BAD_FILES = {
    "missing.tflite": "there is no file",
    "folder.tflite": "is a folder",
    "empty.tflite": "is empty",
    "png.tflite": "is no .tflite file",
    "truncated.tflite": "cut short or damaged",
}
BAD_DATA = {
    "missing.npz": "there is no file",
    "model.keras": "ends in .npz or .npy",
    "empty.npz": "is empty",
    "truncated.npz": "is cut short",
    "damaged.npz": "damaged",
    "short.npy": "damaged",
    "list.npy": "is no .npy file",
    "without_x.npz": "has the arrays ['pictures', 'y']",
    "pickled.npz": "pickled Python objects",
    "text.npz": "no numbers",
    "shape.npz": "(32, 5, 8, 2)",
    "no_samples.npz": "samples",
}


def check_refused(run, command, file, files, tmp_path, words):
    places = {"file": files / file, "files": files, "out": tmp_path / "out"}
    code, out, err = run(*(part.format(**places) for part in command))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    assert words in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", MODEL_COMMANDS)
@pytest.mark.parametrize("file", BAD_MODELS)
def test_bad_model(run, command, file, files, tmp_path):
    check_refused(run, MODEL_COMMANDS[command], file, files, tmp_path, BAD_MODELS[file])


@pytest.mark.parametrize("command", FILE_COMMANDS)
@pytest.mark.parametrize("file", BAD_FILES)
def test_bad_file(run, command, file, files, tmp_path):
    check_refused(run, FILE_COMMANDS[command], file, files, tmp_path, BAD_FILES[file])


@pytest.mark.parametrize("command", DATA_COMMANDS)
@pytest.mark.parametrize("file", BAD_DATA)
def test_bad_data(run, command, file, files, tmp_path):
    check_refused(run, DATA_COMMANDS[command], file, files, tmp_path, BAD_DATA[file])


@pytest.mark.parametrize("command", ["compare", "report"])
def test_data_without_labels(run, command, files, tmp_path):
    check_refused(run, DATA_COMMANDS[command], "without_y.npz", files, tmp_path, "needs an array y")


@pytest.mark.parametrize("command", ["groups", "prune", "compress", "export"])
def test_file_where_a_keras_model_is_needed(run, command, files, tmp_path):
    check_refused(run, MODEL_COMMANDS[command], "model.tflite", files, tmp_path, "takes Keras models")


def test_keras_model_where_a_file_is_needed(run, files, tmp_path):
    words = f"`tfprune export {files / 'model.keras'} model.tflite`"
    check_refused(run, FILE_COMMANDS["bench"], "model.keras", files, tmp_path, words)
