"""From an exception to an exit code and one line that says what to do."""

import dis
import re
from types import TracebackType

OK, CHECK_FAILED, BAD_INPUT, BUG, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 70, 130, 141

_BOXES = set("┃│|━─┏┡└")  # lines of a table
_MAX_LENGTH = 1000

# The library speaks of Python arguments; here they are options.
_WORDING = [
    (r"overwrite=True", "--overwrite"),
    (r"quantize=(None|'None')", "--quantize none"),
    (r"quantize=[\"'](\w+)[\"']", r"--quantize \1"),
    (r"calibration=x_train\[:500\]", "--calibration DATA.npz"),
    (r": x_train\[:500\]", ""),
    (r"io_dtype=[\"'](\w+)[\"']", r"--io \1"),
    (r"io_dtype must", "--io must"),
    (r"sparse=True", "--sparse"),
    (r"`tolerance`", "--tolerance"),
    (r"max_samples=(\d+)", r"--max-samples \1"),
    (r"min_channels", "--min-channels"),
    (r"pass options=tfprune\.CompressOptions\(restart=True\)", "pass --restart"),
    (r"Pass options=tfprune\.CompressOptions\(learning_rate=([\d.e-]+)\)", r"Pass --learning-rate \1"),
    (r"epochs=(\d+)\. Train longer, or pass options=tfprune\.CompressOptions\(.*?\)", r"--epochs \1. Train longer"),
    (r" CompressOptions\(teacher=False\) says so at once\.", ""),
    (r"Pass validation=\(x, y\)", "Pass --validation DATA.npz"),
    (r"Budget\([^)]*\) cannot be met", "The budget cannot be met"),
    (r"print\(tfprune\.channel_groups\(model\)\)", "`tfprune groups MODEL`"),
    (r"Pass metric=.*", "The command measures accuracy only: in Python, metric= measures others."),
    (r"load it with keras\.saving\.load_model\(path, safe_mode=False\)", "pass --unsafe"),
    (r"export tfprune\.strip\(model\)", "save tfprune.strip(model) in Python and export that"),
]


class InputError(Exception):
    """What was given cannot be used; the message says what was expected and what to do."""


def exit_code(error: BaseException) -> int:
    """Return the exit code for an exception.

    An error that the library raised on purpose, with words of its own, is the input's fault; so is what the file
    system refuses. Any other is a bug, of tfprune or of what it stands on.

    Args:
        error: What was raised.

    Returns:
        One of `CHECK_FAILED`, `BAD_INPUT` and `BUG`.

    Example:

    >>> exit_code(InputError("no such layer")), exit_code(KeyError("surprise"))
    (2, 70)
    """
    if type(error).__name__ == "ExportMismatchError":  # by name: its module would load TensorFlow
        return CHECK_FAILED
    if isinstance(error, InputError | OSError):
        return BAD_INPUT
    meant = isinstance(error, ValueError | ImportError | RuntimeError) and _raised_by_tfprune(error.__traceback__)
    return BAD_INPUT if meant else BUG


def one_line(error: BaseException) -> str:
    """Return the message of an exception in one line, in the words of the command line, without tables.

    Args:
        error: What was raised.

    Returns:
        The line; the exception's class if it has no message.

    Example:

    >>> one_line(ValueError('Use quantize="int8",\\n or pass overwrite=True.'))
    'Use --quantize int8, or pass --overwrite.'
    """
    lines = [line for line in str(error).splitlines() if not set(line) & _BOXES]
    text = re.sub(r"\s+", " ", " ".join(lines)).strip() or type(error).__name__
    for pattern, option in _WORDING:
        text = re.sub(pattern, option, text)
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 3] + "..."


def _raised_by_tfprune(traceback: TracebackType | None) -> bool:
    """Whether the innermost frame is the library's and stands at a `raise`, not at a call or an index that failed."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    raised = frame.f_code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return raised and str(frame.f_globals.get("__name__", "")).startswith(("tfprune.", "tfprune_cli."))
