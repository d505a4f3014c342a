"""Models and files side by side: what each is worth, and what it costs."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tfprune.data import Batch, Inputs, Reader
from tfprune.measure.benchmarking import STARTS, FileTiming, time_in_turns
from tfprune.measure.comparison import ComparedModel, Comparison, Latency, slower_in_integers
from tfprune.measure.entries import Entry
from tfprune.measure.input_ranges import misses
from tfprune.measure.memory import peak_memory
from tfprune.measure.opening import open_entries
from tfprune.measure.outputs import Metrics, OutputScores

_WARMUP = 5


def compare(
    models: Any,
    data: Any,
    *,
    metric: Metrics | None = None,
    max_samples: int | None = None,
    runs: int = 50,
    progress: bool = True,
) -> Comparison:
    """Measure Keras models and `.tflite` files on the same data and machine: accuracy, size, MACs, latency, memory.

    The first entry is the baseline of all ratios. A Keras model predicts in batches, and stands with the size, latency
    and memory of the float32 `.tflite` that `export` makes of it; a `.tflite` file runs as it is, sample by sample.
    Files are timed in turns, as in `benchmark`, loaded five times over, with one thread and then with all cores. All of
    it is of this machine: a phone's latencies differ, and so do their ratios.

    Args:
        models: A list, or a dict from names, of built Keras models, paths of `.keras` files (loaded in safe mode) and
            paths of `.tflite` files. Outputs are matched by name, and by order where one has no names of its own.
        data: What accuracy is measured on, in any form that `fit` takes: arrays `(x, y)` or `(x, y, sample_weight)`, or
            a `tf.data.Dataset`, a `keras.utils.PyDataset` or another iterable of batches of these. `x` is scaled as in
            training, real numbers also for int8 files; for several inputs a dict by the names that they have in the
            first entry, or a list in their order. `y` are integer or one-hot labels; for several outputs a dict by
            the names of the first entry's, as its file or Keras has them, or a list in their order. Read once.
        metric: None for top-1 accuracy; otherwise a `keras.metrics.Metric`, whose state is reset, or a function
            of `y_true` and `y_pred`, and of `sample_weight` if there are weights, that returns a number. Outputs of
            all samples are then kept in memory. It is taken of each output; a dict by output has one for each, and
            what it does not name is not measured. The score of a model is the mean over its outputs.
        max_samples: Use at most this many samples: evenly spread over arrays, the first ones of a dataset.
        runs: Timed runs of each file.
        progress: Whether to show on stderr, if it is a terminal, how far the work is.

    Returns:
        One row per entry, in the order given. Print it for a table; `plot(path)` draws it, `save(path)` keeps it.

    Raises:
        TypeError: If an entry is no Keras 3 model and no path, or the data or the metric has another form.
        FileNotFoundError: If there is no file at a path.
        ValueError: If there is nothing to compare, a file is damaged or of another kind, the outputs of the models
            differ, the data does not fit them, or a number is too small.
        RuntimeError: If a model cannot be converted, or a file cannot run on this machine.
        ExportMismatchError: If the `.tflite` of a Keras model computes something else.

    Example:

    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    >>> model.set_weights([np.eye(2)])
    >>> result = compare({"identity": model}, (np.eye(2), np.array([0, 0])), runs=1)
    >>> result.models[0].name, result.models[0].score, result.models[0].macs
    ('identity', 0.5, 4)
    """
    if runs < 1:
        raise ValueError(f"runs must be 1 or more. Received: {runs}.")
    entries = open_entries(models)
    scores = [OutputScores(metric, entries[0].outputs) for _ in entries]
    reader = Reader(data, entries[0].inputs, needs_labels=True, max_samples=max_samples)
    if reader.arrays is not None:
        scores[0].check(reader.arrays)  # all labels, before the work
    source = iter(reader)
    first = next(source)
    scores[0].check(first)
    named = reader.inputs.samples(first.x)
    samples = [entry.samples(named) for entry in entries]
    costs = [entry.costs() for entry in entries]
    notes = [
        note
        for entry, given in zip(entries, samples, strict=True)
        for note in misses(entry.ranges(), given, entry.name)
    ]
    with _display(progress) as display, tempfile.TemporaryDirectory() as folder:
        files = [
            entry.file(Path(folder) / f"{index}.tflite", samples[index])
            for index, entry in enumerate(display.track(entries, description="files"))
        ]
        num_samples = _evaluate(entries, scores, reader.inputs, itertools.chain([first], source), display)
        results = [score.results() for score in scores]
        counts = sorted({1, _num_cores()})
        timings = {
            count: time_in_turns(files, runs, _WARMUP, count, STARTS)
            for count in display.track(counts, description="latency")
        }
        memory = [peak_memory(str(file.path)) for file in display.track(files, description="memory")]
    rows = zip(entries, results, costs, timings[counts[0]], timings[counts[-1]], memory, strict=True)
    compared = tuple(
        ComparedModel(
            name=entry.name,
            score=sum(result.values()) / len(result),
            scores=result,
            **cost._asdict(),
            file_bytes=one.file_bytes,
            gzip_bytes=one.gzip_bytes,
            latency=_latency(one, counts[0]),
            latency_all_cores=_latency(every, counts[-1]),
            memory_bytes=peak,
            integers=entry.integers,
        )
        for entry, result, cost, one, every, peak in rows
    )
    notes += slower_in_integers(compared)
    return Comparison(compared, scores[0].name, num_samples, runs, tuple(notes))


def _evaluate(
    entries: list[Entry], scores: Sequence[OutputScores], inputs: Inputs, source: Iterable[Batch], display: Progress
) -> int:
    """Show every batch to every entry, so that data that is shuffled or read once is the same for all."""
    num_samples = 0
    for batch in display.track(source, description=scores[0].name):
        named = inputs.samples(batch.x)
        for entry, score in zip(entries, scores, strict=True):
            score.add(batch, entry.predict(entry.samples(named)))
        num_samples += batch.num_samples
    return num_samples


def _latency(timing: FileTiming, num_threads: int) -> Latency:
    ratios = (timing.ratio, timing.ratio_low, timing.ratio_high)
    return Latency(num_threads, timing.median_ms, timing.p90_ms, *ratios)


def _num_cores() -> int:
    """Return how many cores this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _display(wanted: bool) -> Progress:
    """Return a progress display that draws only when it is told to: a thread that redraws would disturb the timing."""
    console = Console(stderr=True)
    return Progress(console=console, auto_refresh=False, transient=True, disable=not (wanted and console.is_terminal))
