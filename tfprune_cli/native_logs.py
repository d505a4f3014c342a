"""Silence for what TensorFlow's native code logs, which no setting of Python's reaches."""

import faulthandler
import io
import os
import shutil
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Open to nowhere the streams that whoever started the process closed, for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, for the whole process


def hide_native_logs() -> None:
    """Send what native code writes to stdout and stderr to nowhere, for the rest of the process.

    TensorFlow logs while it is imported, before its own log level counts. Python's `sys.stdout` and `sys.stderr` go
    where they went, and so does the traceback of a crash in native code.
    """
    # What looks for the size of the terminal would look at the streams that are closed here.
    os.environ.setdefault("COLUMNS", str(shutil.get_terminal_size((120, 24)).columns))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stdout, sys.stderr = _moved(sys.stdout), _moved(sys.stderr)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for native in (1, 2):
        os.dup2(nowhere, native)
    os.close(nowhere)
    faulthandler.enable(sys.stderr)


def _moved(stream: TextIO) -> TextIO:
    """Return a stream of its own to where this one goes; what its encoding has no character for is escaped."""
    stream.flush()
    raw = os.fdopen(os.dup(stream.fileno()), "wb")
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=stream.isatty())
