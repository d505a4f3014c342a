"""What native code writes during a call is hidden, what Python writes and what goes wrong is not."""

import os
import subprocess
import sys

import pytest

from tfprune.common import native_logs

SCRIPT = """
import importlib.util, os, sys, warnings
# By its file, as importing tfprune would load TensorFlow, which takes seconds.
spec = importlib.util.spec_from_file_location("native_logs", sys.argv.pop(1))
native_logs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native_logs)
hidden_native_logs = native_logs.hidden_native_logs

def native(text):
    os.write(2, text + b"\\n")

try:
    with hidden_native_logs():
        native(b"I0000 00:00 loader.cc:1] noise")
        native(b"INFO: noise of a delegate")
        with hidden_native_logs():
            native(b"nested noise")
        print("progress", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        if sys.argv[1:]:
            native(b"error: failed while converting")
            raise ValueError("failed")
except ValueError as error:
    print("raised", error, file=sys.stderr)
native(b"after")
print("python after", file=sys.stderr)
"""


def lines(*arguments, **environment):
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", SCRIPT, native_logs.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=known | environment, timeout=120)
    assert done.returncode == 0, done.stderr
    _, found, rest = done.stderr.partition("nested noise\n" if environment else "progress\n")
    return found + rest


@pytest.fixture(scope="module")
def quiet():
    return lines()


def test_only_python_is_heard(quiet):
    assert "noise" not in quiet
    assert "UserWarning: a warning" in quiet
    assert quiet.endswith("after\npython after\n")


def test_errors_are_told_after_all():
    told = lines("fail")
    assert "noise" not in told
    assert told.endswith("error: failed while converting\nraised failed\nafter\npython after\n")


def test_all_is_heard_where_it_is_asked_for():
    assert "nested noise" in lines(TF_CPP_MIN_LOG_LEVEL="0")


def test_exports_and_timings_are_quiet(tmp_path):
    code = """
import sys, keras, numpy as np, tfprune
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
print("begin", file=sys.stderr)
x = np.random.default_rng(0).normal(size=(16, 4))
tfprune.export(model, sys.argv[1], quantize="int8", calibration=x)
tfprune.benchmark(sys.argv[1], runs=2)
"""
    known = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code, str(tmp_path / "model.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, env=known, timeout=120)
    assert done.returncode == 0, done.stderr
    during = done.stderr.partition("begin\n")[2]
    assert [line for line in during.splitlines() if "cuda" not in line] == []
    assert done.stdout == ""
