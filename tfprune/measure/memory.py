"""How much memory a `.tflite` file takes to load and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tfprune.tflite.model import Interpreter

# The probe is run by its path: to import it from tfprune would load TensorFlow, whose memory drowns that of a file.
_PROBE = Path(__file__).with_name("memory_probe.py")
_START = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def peak_memory(path: str | os.PathLike[str]) -> int | None:
    """Return how much memory a `.tflite` file takes to load and run, measured in a fresh process.

    It is the growth of the process's resident memory from before the file is opened to the peak over three runs with
    one thread: the weights, the copies that kernels make of them, the buffers between the operators, and some 3 MB
    of the runtime's own code, which any file needs.

    Args:
        path: The file.

    Returns:
        Bytes; None where a process cannot measure its own peak: on systems other than Linux, and in some sandboxes.

    Raises:
        RuntimeError: If the process fails.

    Example:

    >>> measured = peak_memory("missing.tflite")
    Traceback (most recent call last):
    ...
    RuntimeError: The process that measures the memory of 'missing.tflite' failed: ...
    """
    where = json.dumps([entry or os.getcwd() for entry in sys.path])
    command = [sys.executable, "-c", _START, where, str(_PROBE), Interpreter.__module__, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(
            f"The process that measures the memory of {str(path)!r} failed: {reason}. Check that the file runs alone."
        )
    return json.loads(done.stdout)
