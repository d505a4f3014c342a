"""How much memory a `.tflite` file takes to load and run."""

import json
import os
from pathlib import Path

from tfprune.tflite.child_process import reason_of, run_program
from tfprune.tflite.model import Interpreter

_PROBE = Path(__file__).with_name("memory_probe.py")


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
    done = run_program(_PROBE, Interpreter.__module__, str(path))
    if done.returncode:
        raise RuntimeError(
            f"The process that measures the memory of {str(path)!r} failed: {reason_of(done)}. "
            "Check that the file runs alone."
        )
    return json.loads(done.stdout)
