"""`main`: reads the command line, runs the command, and turns every end into an exit code."""

import contextlib
import importlib
import json
import logging
import math
import os
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tfprune_cli.errors import BAD_INPUT, BUG, CLOSED_PIPE, INTERRUPTED, OK, InputError, exit_code, one_line
from tfprune_cli.native_logs import hide_native_logs, open_closed_streams
from tfprune_cli.notes import note
from tfprune_cli.parser import build_parser

if TYPE_CHECKING:
    from rich.table import Table

    from tfprune.common.tables import Report

# The modules load TensorFlow: the one that is asked for is imported when its command runs.
MODULES = {
    "profile": "inspection",
    "groups": "inspection",
    "prune": "pruning",
    "compress": "compressing",
    "export": "exporting",
    "bench": "measuring",
    "compare": "measuring",
    "report": "measuring",
}
_STILL = ("bench", "compare", "report", "compress")  # a line that moves would disturb the timing, or other lines
_SUFFIXES = {
    "prune": (".keras",),
    "compress": (".tflite",),
    "export": (".tflite",),
    "report": (".html",),
    "compare": (".png", ".svg"),
}
_WIDTH = 120  # of tables in files and pipes, and where a terminal is too narrow


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tfprune` with these arguments, and return the exit code.

    Args:
        arguments: What stands behind `tfprune`. None for the process's own; what TensorFlow's native code logs is
            then hidden for the rest of the process, unless `--debug` is among them.

    Returns:
        0 if all is fine, 1 if a check failed, 2 if what was given cannot be used, 70 after an unexpected error, 130
        when interrupted, 141 if nobody reads the output.

    Example:

    >>> main(["--version"])
    tfprune ...
    0
    """
    if arguments is None:
        open_closed_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where what cannot be written is an error
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except OSError as error:
        # Python flushes once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        note(f"error: The result cannot be written: {error.strerror or error}.")
        return BAD_INPUT
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as end:  # after --help, or one line of error
        return int(end.code or 0)
    if arguments is None and not options.debug:
        hide_native_logs()
    try:
        _check(options)
        with _quiet(options.debug), _status(options.command):
            _check_output(options)
            module = importlib.import_module(f"tfprune_cli.{MODULES[options.command]}")  # this loads TensorFlow
            report = getattr(module, options.command)(options)
    except Exception as error:
        return _failed(error, options.debug)
    _print(report, options.json)
    return OK


def _check(options: Namespace) -> None:
    """Raise for what can be known to be wrong before TensorFlow is loaded."""
    if options.command == "prune":
        limits = [options.macs, options.parameters, options.bytes]
        if (options.ratio is None) == (limits == [None, None, None]):
            raise InputError("Give either --ratio, or a budget: --macs, --parameters, --bytes. --ratio 0.25, say.")
    if options.command == "export":
        for name, needed in (("mean", "labels"), ("std", "labels"), ("max_samples", "calibration")):
            if getattr(options, name) is not None and getattr(options, needed) is None:
                raise InputError(f"--{name.replace('_', '-')} says nothing without --{needed}. Give both, or neither.")
    if options.command == "compress" and options.scale is not None:
        folders = [path for path in (options.data, options.validation) if path is not None and path.is_dir()]
        if not folders:
            raise InputError(
                "--scale is for folders of images. Scale what is in a .npz or .npy file before you save it."
            )
    out = _output(options)
    if out is None:
        return
    suffixes = _SUFFIXES[options.command]
    if out.suffix not in suffixes:
        raise InputError(
            f"The output must end in {' or '.join(suffixes)}. Received: '{out}'. Try '{out.with_suffix(suffixes[0])}'."
        )
    if out.is_file() and not options.overwrite and not _goes_on(options):
        raise InputError(f"There is a file at '{out}' already. Pass --overwrite to replace it, or choose another path.")


def _goes_on(options: Namespace) -> bool:
    """Whether the output may be this very command's, from before: what is in the folder beside it will tell."""
    return options.command == "compress" and not options.restart and options.out.with_suffix(".compress").is_dir()


def _output(options: Namespace) -> Path | None:
    out: Path | None = vars(options).get("picture" if options.command == "compare" else "out")
    return out


def _check_output(options: Namespace) -> None:
    """Raise where the output cannot be written."""
    from tfprune.common.files import check_writable

    out = _output(options)
    if out is not None:
        check_writable(out)


@contextlib.contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Keep stdout for the result: what others print goes to stderr, what they log nowhere, our warnings are notes."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        note(f"note: {one_line(Warning(str(message)))}")

    disabled = logging.root.manager.disable
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not debug:
            logging.disable(logging.CRITICAL)
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module=r"tfprune(_cli)?(\.|$)")
            warnings.showwarning = show
        try:
            yield
        finally:
            logging.disable(disabled)


def _status(command: str) -> contextlib.AbstractContextManager[Any]:
    """Return a moving line on the terminal, if there is one, where nothing is timed or said."""
    console = Console(stderr=True)
    quiet = command in _STILL or not console.is_terminal
    return contextlib.nullcontext() if quiet else console.status(f"tfprune {command}")


def _print(report: "Report", as_json: bool) -> None:
    if as_json:
        print(json.dumps(_finite(report.to_dict()), indent=2))
        return
    print("\n\n".join(_as_text(table) for table in report.tables()))


def _as_text(table: "Table") -> str:
    console = Console(highlight=False)
    needed = console.measure(table, options=console.options.update(width=_WIDTH)).minimum
    if not console.is_terminal or needed > console.width:  # in too little room, rich cuts numbers off
        console.width = _WIDTH
    with console.capture() as capture:  # rich would end the process itself if nobody reads
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _finite(value: Any) -> Any:
    """Return a value without infinity and NaN, for which JSON has no words: None instead."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _failed(error: Exception, debug: bool) -> int:
    """Say what went wrong in one line, and return the exit code."""
    code = exit_code(error)
    if debug:
        traceback.print_exception(error)
    text = one_line(error)
    if code == BUG:
        text = f"unexpected {type(error).__name__}: {text.rstrip('.')}. "
        text += "Please report it." if debug else "Run it again with --debug to see where it comes from."
    note(f"error: {text}")
    return code
