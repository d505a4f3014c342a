"""What `compare` found, as a table, as JSON and as a picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tfprune.common.tables import Report, new_table
from tfprune.measure.picture import Panel, Point, draw


@dataclass(frozen=True)
class Latency:
    """How long one sample takes; ratios are to the first entry, below 1 if this one is faster.

    Attributes:
        num_threads: Threads of the interpreter.
        median_ms: Median, in milliseconds.
        p90_ms: 90th percentile, in milliseconds.
        ratio: Median over the rounds of this entry's latency divided by the first entry's in the same round.
        ratio_low: First quartile of the same.
        ratio_high: Third quartile of the same.
    """

    num_threads: int
    median_ms: float
    p90_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class ComparedModel:
    """One row of a comparison. What is said of a file is, for a Keras model, about its float32 `.tflite`.

    Attributes:
        name: The name given, or the model's or file's own.
        score: Accuracy as a fraction, or what the metric gave; the mean where several outputs are measured.
        parameters: Weights: of a Keras model as in `profile`; of a file what it stores, with normalization folded.
        nonzeros: How many of them are not zero.
        macs: Multiply-accumulate operations for one sample; None if a file hides them in loops or custom operators.
        file_bytes: Size of the file.
        gzip_bytes: Its size compressed.
        latency: With one thread.
        latency_all_cores: With a thread for each core that this process may use.
        memory_bytes: By how much the peak memory of a fresh process grows by loading and running the file with one
            thread, some 3 MB of the runtime's code included; None where a process cannot measure it.
        integers: `"int8"` or `"int16x8"` where the file computes in integers; None where it computes in float.
        scores: The score of each output that is measured, by its name.
    """

    name: str
    score: float
    parameters: int
    nonzeros: int
    macs: int | None
    file_bytes: int
    gzip_bytes: int
    latency: Latency
    latency_all_cores: Latency
    memory_bytes: int | None
    integers: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison(Report):
    """Models and files side by side; the first is what the others are compared with.

    Attributes:
        models: One row per entry, in the order given.
        metric: What `score` is: `"accuracy"`, or the metric's name.
        num_samples: Samples that it was measured on.
        runs: Timed runs of each file.
        notes: What else one should know: inputs that are scaled otherwise than in training, and files that are slower
            in integers than in float.
    """

    models: tuple[ComparedModel, ...]
    metric: str
    num_samples: int
    runs: int
    notes: tuple[str, ...] = ()

    def to_table(self) -> Table:
        """Return one row per entry, with what differs from the first below each number."""
        cores = self.models[0].latency_all_cores.num_threads
        numbers = [escape(self.metric), "params", "nonzero", "MACs", "file kB", "gzip kB", "1 thread ms"]
        title = f"Comparison on {self.num_samples:,} samples"
        table = new_table(title, ["model"], [*numbers, f"{cores} threads ms", "mem. MB"])
        table.show_lines = True
        table.caption_justify = "left"
        legend = f"x: times the first row; for latency, the quartiles over {self.runs} pairs of runs."
        table.caption = Text("\n".join([legend, *self._by_output(), *self.notes]))
        for model in self.models:
            table.add_row(escape(model.name), *self._cells(model))
        return table

    def costs(self) -> list[tuple[str, str, list[float | None]]]:
        """Return what is drawn against the score: the name of each cost, its unit, and its value for each entry."""
        return [
            ("MACs", "", [model.macs for model in self.models]),
            ("file size", "B", [model.file_bytes for model in self.models]),
            ("latency", "s", [model.latency.median_ms / 1e3 for model in self.models]),
        ]

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the score against MACs, file size and latency, one named point per entry; the first has a ring.

        Args:
            path: Where the picture goes; ends in `.svg` or `.png`.

        Returns:
            The path.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the path ends in something else, or a score is not finite.
            OSError: If it cannot be written.
        """
        scale, label = (100.0, "accuracy, %") if self.metric == "accuracy" else (1.0, self.metric)
        scores = [model.score * scale for model in self.models]
        if not np.isfinite(scores).all():
            raise ValueError(f"There is no place on an axis for these scores: {scores}.")
        panels = []
        for what, unit, column in self.costs():
            what = "latency, 1 thread" if what == "latency" else what
            rows = list(zip(self.models, column, scores, strict=True))
            unknown = ", ".join(row.name for row, x, _ in rows if x is None)
            title = f"{what} (not known: {unknown})" if unknown else what
            panels.append(Panel(title, unit, tuple(Point(row.name, x, y) for row, x, y in rows if x is not None)))
        return draw(path, panels, label)

    def _cells(self, model: ComparedModel) -> list[str]:
        first = self.models[0]
        return [
            self._score(model),
            _count(model.parameters, first.parameters, model is first),
            _count(model.nonzeros, first.nonzeros, model is first),
            _count(model.macs, first.macs, model is first),
            _thousands(model.file_bytes, first.file_bytes, model is first),
            _thousands(model.gzip_bytes, first.gzip_bytes, model is first),
            _timing(model.latency, model is first),
            _timing(model.latency_all_cores, model is first),
            _megabytes(model.memory_bytes, first.memory_bytes, model is first),
        ]

    def _by_output(self) -> list[str]:
        if len(self.models[0].scores) < 2:
            return []
        means = f"{self.metric} is the mean over the outputs"
        shown = [
            f"{model.name}: {', '.join(f'{name} {score:.4g}' for name, score in model.scores.items())}"
            for model in self.models
        ]
        return [f"{means}. {'; '.join(shown)}."]

    def _score(self, model: ComparedModel) -> str:
        first = self.models[0]
        if self.metric == "accuracy":
            text, change = f"{model.score:.2%}", f"{(model.score - first.score) * 100:+.2f} pp"
        else:
            text, change = f"{model.score:.4g}", f"{model.score - first.score:+.3g}"
        return text if model is first else f"{text}\n{change}"


def slower_in_integers(models: Sequence[ComparedModel]) -> list[str]:
    """Say which files in integers take longer than the same network in float, more clearly than the quartiles vary.

    Args:
        models: The rows of a comparison. The same network has as many MACs; without one, the first row stands for it.

    Returns:
        A sentence for each.
    """
    found = []
    for model in models:
        others = [other for other in models if other.integers is None]
        same = next((other for other in others if other.macs == model.macs), others[0] if others else None)
        if model.integers is None or same is None or (same.macs != model.macs and same is not models[0]):
            continue
        ours, theirs = model.latency, same.latency
        if ours.ratio_low > theirs.ratio_high:
            found.append(
                f"{model.name!r} computes in {model.integers} and is slower than {same.name!r} in float: with one "
                f"thread on this machine it takes {ours.ratio / theirs.ratio:.2f} times as long. Measure on the device "
                "that it is for; networks as small as that, or with operators left in float, may gain nothing."
            )
    return found


def _count(value: int | None, base: int | None, alone: bool) -> str:
    if value is None:
        return "?"
    size, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size), (1, ""))
    return _with_ratio(f"{value / size:.2f} {unit}" if unit else str(value), value, base, alone)


def _thousands(value: int, base: int, alone: bool) -> str:
    return _with_ratio(f"{value / 1e3:,.0f}" if value >= 1e4 else f"{value / 1e3:.2f}", value, base, alone)


def _megabytes(value: int | None, base: int | None, alone: bool) -> str:
    return "?" if value is None else _with_ratio(f"{value / 1e6:.1f}", value, base, alone)


def _with_ratio(text: str, value: float, base: float | None, alone: bool) -> str:
    return text if alone or not base else f"{text}\nx {value / base:.2f}"


def _timing(latency: Latency, alone: bool) -> str:
    digits = 3 if latency.median_ms >= 0.1 else 4
    text = f"{latency.median_ms:.{digits}f}\np90 {latency.p90_ms:.{digits}f}"
    return text if alone else f"{text}\nx {latency.ratio_low:.2f}-{latency.ratio_high:.2f}"
