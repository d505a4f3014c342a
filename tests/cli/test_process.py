"""The command as a process: fast where it needs no TensorFlow, and quiet where it does."""

import json
import os
import subprocess
import sys

import pytest

# TensorFlow logs nothing of its own accord here, not because the tests' environment tells it to.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def command(*arguments, **options):
    line = [sys.executable, "-m", "tfprune_cli", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, **options)


def test_logs_of_tensorflow_do_not_show(files, tmp_path):
    arguments = ["export", files / "model.keras", tmp_path / "m.tflite", "--calibration", files / "data.npz"]
    done = command(*arguments, "--quantize", "int8", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["quantize"] == "int8"


HELP = [["--help"], ["export", "--help"], ["--version"]]
WRONG_USAGE = [
    [],
    ["nothing"],
    ["bench"],
    ["bench", "model.keras"],
    ["profile", "missing.keras"],
    ["profile", "model.keras", "--wrong\noption"],
    ["prune", "model.keras", "small.keras"],
    ["prune", "model.keras", "small.keras", "--ratio", "0.3", "--macs", "0.5"],
    ["prune", "model.keras", "small.h5", "--ratio", "0.3"],
    ["prune", "model.keras", "model.keras", "--ratio", "0.3"],
    *(["prune", "model.keras", "small.keras", "--ratio", value] for value in ("bad", "1", "-0.1", "nan", "")),
    *(
        ["prune", "model.keras", "small.keras", "--ratio", "0.3", flag, "0"]
        for flag in ("--min-channels", "--round-to")
    ),
    ["prune", "model.keras", "small.keras", "--bytes", "inf"],
    ["compress", "model.keras", "--data", "data.npz", "--out", "m.tflite", "--budget", "latency=8ms"],
    ["compress", "model.keras", "--data", ".", "--out", "m.tflite", "--budget", "macs=0.5"],
    ["export", "model.keras", "m.tflite", "--quantize", "int7"],
    ["export", "model.keras", "m.tflite", "--tolerance", "-1"],
    ["compare", "model.keras"],
    ["report", "model.keras", "--out", "page.txt"],
]


@pytest.mark.sampled(6)
@pytest.mark.parametrize("arguments", [*HELP, *WRONG_USAGE], ids=" ".join)
def test_help_and_wrong_usage_do_not_load_tensorflow(files, arguments):
    code = (
        "import sys; from tfprune_cli import main; code = main(sys.argv[1:]); "
        "sys.exit(100 if {'tensorflow', 'keras', 'numpy'} & set(sys.modules) else code)"
    )
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, cwd=files)
    if arguments in HELP:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert done.stderr.startswith("error: ")
        assert not done.stdout
