"""What comes out of `compress`: the file, and whether it is within the budget."""

import dataclasses
import hashlib
from pathlib import Path

import keras

from tfprune.common.files import write_atomically
from tfprune.drivers.compression.compression_report import BudgetLine
from tfprune.drivers.compression.planning import Int8Files, latency_ratio
from tfprune.drivers.runs import Run
from tfprune.exporting import ExportReport, export
from tfprune.exporting.inputs import Samples, input_specs
from tfprune.shrinking.budget import measure


def write_file(aware: keras.Model, target: Path, samples: Samples, io_dtype: str, run: Run) -> ExportReport:
    """Write the int8 file, but not before the run has noted that it is its own.

    Args:
        aware: The quantize-aware model.
        target: Where the file goes.
        samples: Inputs to calibrate on, in the order of the model's inputs.
        io_dtype: dtype of the file's inputs and outputs.
        run: What is noted there is the file's hash, as `written`.

    Returns:
        The report on the file.
    """
    own = run.path / "model.tflite"
    named = dict(zip(input_specs(aware), samples.values(), strict=True))
    report = export(aware, own, quantize="int8", calibration=named, io_dtype=io_dtype, overwrite=True)
    run.note(written=sha256(own))
    write_atomically(target, own.read_bytes())
    own.unlink()
    return dataclasses.replace(report, path=str(target))


def budget_lines(
    limits: dict[str, float], dense: keras.Model, pruned: keras.Model, written: ExportReport, files: Int8Files
) -> tuple[BudgetLine, ...]:
    """Return what was reached of each limit.

    Args:
        limits: The budget in absolute numbers.
        dense: The dense model.
        pruned: The pruned model.
        written: The file.
        files: The dense model's file, for latency.

    Returns:
        One line for each limit.
    """
    reached: dict[str, float] = {**measure(pruned), "file_bytes": written.file_bytes}
    if "latency" in limits:
        reached["latency"] = latency_ratio(files.path(dense), Path(written.path))
    return tuple(BudgetLine(name, limit, reached[name], reached[name] <= limit) for name, limit in limits.items())


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
