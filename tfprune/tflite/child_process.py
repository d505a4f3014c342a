"""Programs that run in a process of their own: its memory is theirs alone, and this process outlives them."""

import json
import os
import subprocess
import sys
from pathlib import Path

_START = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def run_program(program: Path, *arguments: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a Python file by its path: to import it from tfprune would load TensorFlow.

    Args:
        program: The file.
        *arguments: What it gets as `sys.argv[1:]`.
        content: What it reads from its standard input.

    Returns:
        How it ended, with what it printed.
    """
    where = json.dumps([entry or os.getcwd() for entry in sys.path])
    command = [sys.executable, "-c", _START, where, str(program), *arguments]
    return subprocess.run(command, input=content, capture_output=True)


def reason_of(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return why a program failed: the last line of what it said, or how it ended."""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said and done.returncode > 0 else f"exit status {done.returncode}"
