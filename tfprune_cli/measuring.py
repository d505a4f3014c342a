"""`tfprune bench`, `tfprune compare` and `tfprune report`: models and files side by side."""

import importlib.util
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.data import load_model
from tfprune.html_report import write_report
from tfprune.measure import benchmark
from tfprune.measure import compare as compare_models
from tfprune_cli.data import read_data
from tfprune_cli.errors import InputError
from tfprune_cli.notes import note


@dataclass(frozen=True)
class Page(Report):
    """The page that `tfprune report` wrote."""

    path: str
    file_bytes: int
    models: tuple[str, ...]

    def to_table(self) -> Table:
        """Return one row per fact."""
        table = new_table(f"Report: {self.path}", ["what"], ["value"])
        table.add_row("models", ", ".join(self.models))
        table.add_row("file size", f"{self.file_bytes:,} B")
        return table


def bench(options: Namespace) -> Report:
    """Time `.tflite` files in turns."""
    return benchmark(*options.files, runs=options.runs, warmup=options.warmup, num_threads=options.threads)


def compare(options: Namespace) -> Report:
    """Measure accuracy, size, operations, latency and memory."""
    if options.picture is not None and importlib.util.find_spec("matplotlib") is None:
        raise InputError("--picture needs matplotlib. Install it: pip install 'tfprune[plot]'.")
    data = read_data(options.data)
    models = _load_all(options.models, options.unsafe)
    labelled = data.labelled(next(iter(models.values())))
    result = compare_models(models, labelled, max_samples=options.max_samples, runs=options.runs)
    if options.picture is not None:
        note(f"wrote {result.plot(options.picture)}")
    return result


def report(options: Namespace) -> Report:
    """Write one HTML page about models and files."""
    data = None if options.data is None else read_data(options.data)
    models = _load_all(options.models, options.unsafe)
    labelled = None if data is None else data.labelled(next(iter(models.values())))
    path = write_report(options.out, models, data=labelled, history=options.history, overwrite=options.overwrite)
    return Page(str(path), path.stat().st_size, tuple(models))


def _load_all(paths: list[Path], unsafe: bool) -> dict[str, Any]:
    """Return models by the names of their files; with their folders, where two files have the same name."""
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"'{twice}' is given twice. Give each file once.")
    names = [path.name if [other.name for other in paths].count(path.name) == 1 else str(path) for path in paths]
    return {
        name: path if path.suffix == ".tflite" else load_model(path, unsafe=unsafe)
        for name, path in zip(names, paths, strict=True)
    }
