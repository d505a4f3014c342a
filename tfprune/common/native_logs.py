"""Silence for what native code logs during one call, which no setting of Python's reaches."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

_STDERR = 2
_NOISE = re.compile(rb"[IW]\d{4} |INFO|WARNING|fully_quantize: ")
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def hidden_native_logs() -> Iterator[None]:
    """Hide what TensorFlow's converter and LiteRT write to the process's stderr while they do what they are asked.

    Python's `sys.stderr` goes where it went, so warnings and progress show. When the call raises, all lines but notes
    are written after all; and nothing is hidden where `TF_CPP_MIN_LOG_LEVEL=0` asks for everything.

    Example:

    >>> with hidden_native_logs():
    ...     written = os.write(2, b"INFO: Created a delegate.")
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    # threads share the descriptor
    with _one_at_a_time, tempfile.TemporaryFile() as log, _redirected(log.fileno()) as original:
        try:
            yield
        except BaseException:
            log.seek(0)
            lines = log.read().splitlines(keepends=True)
            os.write(original, b"".join(line for line in lines if not _NOISE.match(line)))
            raise


@contextlib.contextmanager
def _redirected(target: int) -> Iterator[int]:
    """Send the process's stderr elsewhere, but for Python's own; returns where it went."""
    python = sys.stderr
    try:
        original = os.dup(_STDERR)
    except OSError:  # it was closed by who started the process, and native code has nowhere to write to
        yield target
        return
    try:
        with contextlib.ExitStack() as stack:
            if _descriptor(python) == _STDERR:
                python.flush()
                form: Any = {"encoding": python.encoding, "errors": python.errors}
                own = stack.enter_context(open(os.dup(original), "w", buffering=1, **form))
                sys.stderr = own
            os.dup2(target, _STDERR)
            yield original
    finally:
        os.dup2(original, _STDERR)
        os.close(original)
        sys.stderr = python


def _descriptor(stream: object) -> int | None:
    try:
        number: int = stream.fileno()  # type: ignore[attr-defined]
        return number
    except (AttributeError, OSError, ValueError):  # of a notebook, or closed
        return None
