"""A program of its own, which `memory.py` starts: prints by how many bytes running a `.tflite` file grows it."""

import importlib
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5): sets the peak (VmHWM) to what is resident now (VmRSS)
_RUNS = 3


def main(runtime: str, path: str) -> None:
    """Load and run the file, and print the growth of the resident memory, or `null` where it cannot be measured."""
    interpreter = importlib.import_module(runtime).Interpreter
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        before = _status("VmRSS")
    except (OSError, KeyError):
        print("null")
        return
    loaded = interpreter(model_path=path, num_threads=1)
    loaded.allocate_tensors()
    for _ in range(_RUNS):
        loaded.invoke()
    print(_status("VmHWM") - before)


def _status(name: str) -> int:
    """Return one of the kernel's numbers about this process, in bytes."""
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields[name].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
