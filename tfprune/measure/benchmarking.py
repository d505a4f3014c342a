"""How fast `.tflite` files run on this machine, compared fairly."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from tfprune.common.files import gzip_size
from tfprune.common.tables import Report, new_table
from tfprune.tflite.model import TensorDetails, TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile

STARTS = 5
"""How often files are loaded anew where the place of threads on the cores matters."""


@dataclass(frozen=True)
class FileTiming:
    """Latency and size of one file; ratios are to the first file, below 1 if this one is faster.

    Attributes:
        path: The file.
        median_ms: Median latency of one sample, in milliseconds.
        p90_ms: 90th percentile of the latency, in milliseconds.
        file_bytes: Size of the file.
        gzip_bytes: Its size compressed.
        ratio: Median over the rounds of this file's latency divided by the first file's in the same round.
        ratio_low: First quartile of the same.
        ratio_high: Third quartile of the same.
    """

    path: str
    median_ms: float
    p90_ms: float
    file_bytes: int
    gzip_bytes: int
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class BenchmarkReport(Report):
    """Latencies and sizes of several files, measured in turns.

    Attributes:
        files: One entry per file, in the order given.
        runs: Timed runs of each file.
        num_threads: Threads of the interpreter.
    """

    files: tuple[FileTiming, ...]
    runs: int
    num_threads: int

    def to_table(self) -> Table:
        """Return the report as a `rich.table.Table` of one row per file."""
        title = f"Latency on this machine: {self.runs} runs, {self.num_threads} thread(s)"
        table = new_table(title, ["file"], ["median ms", "p90 ms", "ratio", "quartiles", "bytes", "gzip bytes"])
        names = [Path(file.path).name for file in self.files]
        for name, file in zip(names, self.files, strict=True):
            table.add_row(
                name if names.count(name) == 1 else file.path,
                f"{file.median_ms:.3f}",
                f"{file.p90_ms:.3f}",
                f"{file.ratio:.2f}",
                f"{file.ratio_low:.2f} to {file.ratio_high:.2f}",
                f"{file.file_bytes:,}",
                f"{file.gzip_bytes:,}",
            )
        return table


def benchmark(
    *paths: str | os.PathLike[str], runs: int = 100, warmup: int = 10, num_threads: int = 1
) -> BenchmarkReport:
    """Time several `.tflite` files in turns, and return latencies, sizes and ratios to the first file.

    The files take turns (A, B, A, B, ...) in one process, so that whatever else the machine does hits all of
    them: their *ratio* is steady where the latencies are not. Before each timed run a file runs once untimed,
    as the others have pushed its weights out of the cache. With several threads the files are loaded five times over,
    as a place on the cores that the threads once found, good or bad, lasts as long as they do. A desktop's latencies
    are not a phone's; measure there before you promise anything.

    Args:
        paths: The files; the first is what the others are compared with.
        runs: Timed runs of each file.
        warmup: Rounds of runs before the first timed one.
        num_threads: Threads the interpreter may use.

    Returns:
        The report; print it for a table.

    Raises:
        FileNotFoundError: If there is no file at a path.
        TypeError: If something else than a path is given.
        ValueError: If no path is given, a file is not a `.tflite` file, or a number is too small.
        RuntimeError: If this machine's runtime cannot run a file.

    Example:

    >>> benchmark("missing.tflite")
    Traceback (most recent call last):
    ...
    FileNotFoundError: There is no file at 'missing.tflite'. Check the path, or export the model first.
    """
    if not paths:
        raise ValueError("benchmark() needs at least one path of a .tflite file.")
    if runs < 1 or warmup < 0:
        raise ValueError(f"Expected runs of 1 or more and warmup of 0 or more. Received: runs={runs}, warmup={warmup}.")
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"benchmark() times .tflite files, by their paths. Received: {type(path).__name__}. Export a model "
                "first: tfprune.export(model, 'model.tflite')."
            )
    files, starts = [TFLiteFile.read(path) for path in paths], 1 if num_threads == 1 else STARTS
    timings = time_in_turns(files, runs, warmup, num_threads, starts)
    return BenchmarkReport(timings, runs, num_threads)


def time_in_turns(
    files: Sequence[TFLiteFile], runs: int, warmup: int, num_threads: int, starts: int
) -> tuple[FileTiming, ...]:
    """Time files in turns, as `benchmark` does, with fresh interpreters at each of several starts.

    The threads of an interpreter can keep a good or a bad place on the cores for as long as they live: the same file,
    loaded twice, was seen to differ by 0.6 with two threads, run after run. Several starts draw several places.

    Args:
        files: The files; the first is what the others are compared with.
        runs: Timed runs of each file, over all starts.
        warmup: Rounds of runs after each start, before the first timed one.
        num_threads: Threads the interpreter may use.
        starts: How often to load the files; at most once per run.

    Returns:
        One entry per file.
    """
    parts = np.array_split(np.arange(runs), min(runs, starts))
    seconds = []
    for part in parts:
        models = [TFLiteModel(file, num_threads) for file in files]
        for model in models:
            model.set_inputs({details.name: _typical(details) for details in model.inputs})
        for _ in range(warmup):
            for model in models:
                model.invoke()
        seconds += [[_time_once(model) for model in models] for _ in part]
    return _summarize([str(file.path) for file in files], models, np.array(seconds))


def _time_once(model: TFLiteModel) -> float:
    model.invoke()
    start = time.perf_counter()
    model.invoke()
    return time.perf_counter() - start


def _summarize(paths: list[str], models: list[TFLiteModel], seconds: np.ndarray) -> tuple[FileTiming, ...]:
    """Return the timings per file from latencies of shape `(runs, files)`."""
    ratios = seconds / seconds[:, :1]
    return tuple(
        FileTiming(
            path=path,
            median_ms=float(np.median(seconds[:, column]) * 1e3),
            p90_ms=float(np.percentile(seconds[:, column], 90) * 1e3),
            file_bytes=len(model.content),
            gzip_bytes=gzip_size(model.content),
            ratio=float(np.median(ratios[:, column])),
            ratio_low=float(np.percentile(ratios[:, column], 25)),
            ratio_high=float(np.percentile(ratios[:, column], 75)),
        )
        for column, (path, model) in enumerate(zip(paths, models, strict=True))
    )


def _typical(details: TensorDetails) -> np.ndarray:
    """Return one seeded sample: random where any value will do, 0 for whole numbers, which may be indices."""
    rng = np.random.default_rng(0)
    if details.scale:
        limits = np.iinfo(details.dtype)
        return rng.integers(limits.min, limits.max, details.shape, dtype=details.dtype, endpoint=True)
    values = rng.random(details.shape) if details.dtype.kind == "f" else np.zeros(details.shape)
    return values.astype(details.dtype)
