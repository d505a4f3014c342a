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


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["profile", "missing.keras"], ["bench"]])
def test_help_and_wrong_usage_do_not_load_tensorflow(arguments):
    code = (
        "import sys; from tfprune_cli import main; main(sys.argv[1:]); "
        "sys.exit(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=120
    )
    assert done.returncode == 0, done.stderr
