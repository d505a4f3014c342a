"""What the recipes share: the command line, training, measuring, and the closing table."""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own log would hide ours

import keras
import numpy as np
from example_data import DATASET_HELP, LabelledData
from rich import box
from rich.console import Console
from rich.table import Table

import tfprune
from tfprune.files import check_writable, write_atomically
from tfprune.runtime import TFLiteModel

BATCH_SIZE = 64
File: TypeAlias = dict[str, Any]
console = Console()
FORMATS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "accuracy": ("test\naccuracy", "{:.2%}".format),
    "agreement": ("same\nclass", "{:.1%}".format),
    "parameters": ("params", "{:,}".format),
    "zeros": ("zeros", "{:.0%}".format),
    "macs": ("MACs\n(M)", lambda macs: f"{macs / 1e6:.2f}"),
    "file_bytes": ("kB", lambda size: f"{size / 1000:,.0f}"),
    "gzip_bytes": ("gzip\nkB", lambda size: f"{size / 1000:,.0f}"),
    "median_ms": ("median\nms", "{:.3f}".format),
    "ratio": ("x\nfirst", "{:.2f}".format),
}
COLUMNS = ("accuracy", "parameters", "macs", "file_bytes", "gzip_bytes", "median_ms", "ratio")


def command_line(
    doc: str | None,
    *,
    out: str,
    epochs: int | None = None,
    epochs_help: str = "",
    dataset: str = "mnist5k",
    dataset_help: str = DATASET_HELP,
) -> argparse.ArgumentParser:
    """Return a parser with the options that recipes have in common; without `epochs` there is no training."""
    parser = argparse.ArgumentParser(
        description=(doc or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    if epochs is not None:
        parser.add_argument("--dataset", default=dataset, help=dataset_help)
        parser.add_argument("--epochs", type=int, default=epochs, help=epochs_help)
        parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the samples")
    parser.add_argument("--out", type=Path, default=Path("runs") / out, help="folder for models and report")
    return parser


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    load: Callable[[argparse.Namespace], LabelledData],
    **limits: tuple[float, float],
) -> tuple[argparse.Namespace, LabelledData]:
    """Read the command line and the data, or end with a message that says what is wrong, before time is spent.

    Args:
        parser: From `command_line`, perhaps with options of the recipe's own.
        arguments: The command line; None for that of the process.
        load: Returns the data for the options.
        **limits: The smallest and the largest value that numbers may have, by option.

    Returns:
        The options and the data.
    """
    options = parser.parse_args(arguments)
    check_numbers(parser, options, epochs=(1, math.inf), seed=(0, 2**32 - 1), **limits)
    try:
        check_writable(options.out / "report.json")  # now, not after the training
        data = load(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return options, data


def check_numbers(parser: argparse.ArgumentParser, options: argparse.Namespace, **limits: tuple[float, float]) -> None:
    """End with a message if an option is out of its limits."""
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            kind = "a fraction " if isinstance(value, float) else ""
            range_ = f"at least {low}" if high == math.inf else f"{kind}from {low} to {high}"
            parser.error(f"--{name.replace('_', '-')} must be {range_}. Received: {value}.")


class Steps:
    """Says which step of how many a recipe is at, and how long it has been running."""

    def __init__(self, count: int) -> None:
        self._count, self._number, self._start = count, 0, time.perf_counter()

    def __call__(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        place = f"{self._number}/{self._count} {title}"
        console.rule(f"[bold]{place}[/bold] ({self.seconds:.0f} s so far)", align="left")

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.perf_counter() - self._start


def fit(
    model: keras.Model,
    data: LabelledData,
    epochs: int,
    learning_rate: float,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    optimizer: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.Adam,
) -> keras.callbacks.History:
    """Train with a learning rate that falls to zero along a cosine: where it ends is where it has settled.

    Args:
        model: Anything that returns logits.
        data: What to train on.
        epochs: How often to go through it.
        learning_rate: The first one.
        callbacks: What prunes or measures during training.
        optimizer: Makes the optimizer from the learning rate.

    Returns:
        The logs of the epochs.
    """
    compile_classifier(model, data, epochs, learning_rate, optimizer)
    return model.fit(data.x_train, data.y_train, BATCH_SIZE, epochs, verbose=verbosity(), callbacks=list(callbacks))


def compile_classifier(
    model: keras.Model,
    data: LabelledData,
    epochs: int,
    learning_rate: float,
    optimizer: Callable[..., keras.optimizers.Optimizer] = keras.optimizers.Adam,
    ignore_class: int | None = None,
) -> None:
    """Compile a model that returns logits as `fit` does, for what trains it in another way.

    Args:
        model: Anything that returns logits.
        data: What it will be trained on.
        epochs: After how many the learning rate is zero.
        learning_rate: The first one.
        optimizer: Makes the optimizer from the learning rate.
        ignore_class: The label of samples that have none.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps_per_epoch(data))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore_class)
    # The share of right classes would count samples without a label as wrong.
    model.compile(optimizer(schedule), loss, metrics=["accuracy"] if ignore_class is None else None)


def verbosity() -> int:
    """Return how `fit` tells of itself: by a moving bar, or in a log file by one line per epoch."""
    return 1 if console.is_terminal else 2


def steps_per_epoch(data: LabelledData) -> int:
    """Return how many training steps `fit` makes in an epoch."""
    return math.ceil(len(data.x_train) / BATCH_SIZE)


def export_files(
    dense: keras.Model, pruned: keras.Model, for_int8: keras.Model, data: LabelledData, out: Path
) -> list[tfprune.ExportReport]:
    """Write `dense_float.tflite`, `pruned_float.tflite` and `pruned_int8.tflite`, each checked against its model.

    Args:
        dense: The model before pruning.
        pruned: The one after it.
        for_int8: The model of the int8 file: the pruned one, or what `quantize_aware` made of it.
        data: The ranges of int8 come from its training samples, never from the test set; those that training for int8
            has learned are only checked on them.
        out: The folder.

    Returns:
        What `tfprune.export` says of each.
    """
    calibration = data.x_train[:500]
    return [
        tfprune.export(dense, out / "dense_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(pruned, out / "pruned_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(for_int8, out / "pruned_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
    ]


def measure(
    models: Sequence[keras.Model], exports: Sequence[tfprune.ExportReport], x: Any, y: Any = None
) -> list[File]:
    """Return sizes and latency of files, what they compute, and what their Keras models are made of.

    Args:
        models: A Keras model for each file.
        exports: What `tfprune.export` returned; latencies are compared with the first.
        x: Inputs that training has not seen; None if there are none.
        y: Their labels; None if they have none.

    Returns:
        A dict for each file. `accuracy` is the share of right classes, `agreement` that of inputs which the first file
        puts into the same class.
    """
    paths = [written.path for written in exports]
    files: list[File] = []
    for timing, model in zip(tfprune.benchmark(*paths).files, models, strict=True):
        cost = tfprune.profile(model)
        zeros = 1 - cost.nonzeros / cost.parameters
        files.append({**asdict(timing), "parameters": cost.parameters, "zeros": zeros, "macs": cost.macs})
    outputs = [] if x is None else [TFLiteModel(path).predict(x) for path in paths]
    if outputs and isinstance(outputs[0], np.ndarray) and outputs[0].ndim == 2 and outputs[0].shape[1] > 1:
        classes = [np.argmax(output, axis=-1) for output in outputs]
        for file, found in zip(files, classes, strict=True):
            file["agreement"] = float(np.mean(found == classes[0]))
            if y is not None:
                file["accuracy"] = float(np.mean(found == y))
    return files


def finish(
    options: argparse.Namespace,
    files: list[File],
    steps: Steps,
    columns: Sequence[str] = COLUMNS,
    **more: Any,
) -> dict[str, Any]:
    """Write `report.json`, print the closing table, and return the report.

    Args:
        options: The command line; it goes into the report.
        files: What `measure` returned.
        steps: The clock.
        columns: What the table shows.
        **more: What else goes into the report.

    Returns:
        The report.
    """
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    report = {**given, **more, "files": files, "seconds": steps.seconds}
    write_atomically(options.out / "report.json", json.dumps(report, indent=2) + "\n")
    title = ", ".join(f"{name} {Path(str(given[name])).name}" for name in ("model", "dataset", "seed") if name in given)
    rows = [(Path(row["path"]).stem, *(FORMATS[name][1](row[name]) for name in columns)) for row in files]
    show(("file", *(FORMATS[name][0] for name in columns)), rows, f"{title}, {steps.seconds:.0f} s")
    console.print(f"Models and report.json are in {options.out}")
    return report


def show(header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: text in the first column, numbers to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def tell_chance(accuracy: float, samples: int) -> None:
    """Print by how much an accuracy may be off by chance: two standard errors of a share of that many samples."""
    points = 200 * math.sqrt(accuracy * (1 - accuracy) / samples)
    console.print(f"By chance alone, an accuracy on {samples:,} test samples may be off by {points:.1f} points.")
