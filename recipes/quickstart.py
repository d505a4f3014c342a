"""Quickstart: train a small residual network, prune it during `fit`, shrink it, and ship it as an int8 `.tflite`.

    python recipes/quickstart.py

It takes one to two minutes on two CPU cores, and needs no download: the default data are 5,000 handwritten digits.
At the end it prints what the three files (dense float, pruned float, pruned int8) cost and how accurate they are on
images that the training never saw.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own log would hide ours

import keras
import numpy as np
from example_data import DATASET_HELP, ImageData, load_images
from keras import layers
from rich import box
from rich.console import Console
from rich.table import Table

import tfprune
from tfprune.callbacks import FPGM
from tfprune.files import check_writable
from tfprune.runtime import TFLiteModel

BATCH_SIZE = 64
console = Console()


def conv(x: Any, filters: int, strides: int = 1) -> Any:
    """Convolve and normalize."""
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    # Keras' default momentum of 0.99 is for long trainings; after a few hundred steps its averages are still stale.
    return layers.BatchNormalization(momentum=0.9)(x)


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a ResNet of three stages. What an Add ties together is pruned together, without being told."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.MaxPooling2D()(layers.ReLU()(conv(inputs, 32)))
    # Wide enough that latency is arithmetic and not overhead, small enough to train in seconds per epoch.
    for filters, strides in ((32, 1), (64, 2), (96, 2)):
        x = x if strides == 1 else layers.ReLU()(conv(x, filters, strides))
        branch = conv(layers.ReLU()(conv(x, filters)), filters)
        x = layers.ReLU()(layers.Add()([x, branch]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def fit(model: keras.Model, data: ImageData, epochs: int, learning_rate: float, callbacks: Sequence[Any] = ()) -> None:
    """Train with Adam, whose learning rate falls to zero along a cosine: where it ends is where it has settled."""
    num_steps = epochs * math.ceil(len(data.x_train) / BATCH_SIZE)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    verbose = 1 if console.is_terminal else 2  # a moving bar, or in a log file one line per epoch
    model.fit(data.x_train, data.y_train, BATCH_SIZE, epochs, verbose=verbose, callbacks=list(callbacks))


def accuracy(path: str, data: ImageData) -> float:
    """Return the share of test images that a `.tflite` file gets right."""
    classes = np.argmax(TFLiteModel(path).predict(data.x_test), axis=-1)
    return float(np.mean(classes == data.y_test))


def run(data: ImageData, epochs: int, ratio: float, seed: int, out: Path) -> dict[str, Any]:
    """Train, prune, shrink, export and measure; write the models and `report.json` to `out`, and return the report."""
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()

    def step(title: str) -> None:
        console.rule(f"[bold]{title}[/bold] ({time.perf_counter() - start:.0f} s so far)", align="left")

    step("1/5 Train the dense net")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    fit(dense, data, epochs, learning_rate=2e-3)
    dense.save(out / "dense.keras")

    step(f"2/5 Prune {ratio:.0%} of the filters while it trains on")
    model = keras.models.load_model(out / "dense.keras")
    # Hard FPGM chooses the filters when fit starts and holds them at zero. A few epochs repair the worst; the rest is
    # faster after shrinking, in the small net. Half of the first learning rate keeps more of what the net knows.
    fit(model, data, max(1, epochs // 5), learning_rate=1e-3, callbacks=[FPGM(ratio)])

    step("3/5 Shrink it and fine-tune")
    small = tfprune.shrink(model)
    fit(small, data, epochs, learning_rate=1e-3)
    small.save(out / "pruned.keras")

    step("4/5 Export to .tflite, checked against Keras")
    calibration = data.x_train[:500]  # the ranges of int8 come from training images, never from the test set
    exports = [
        tfprune.export(dense, out / "dense_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(small, out / "pruned_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(small, out / "pruned_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
    ]

    step("5/5 Measure accuracy and latency")
    costs = [tfprune.profile(net) for net in (dense, small, small)]
    timings = tfprune.benchmark(*(written.path for written in exports)).files
    rows = [
        {**asdict(timing), "parameters": cost.parameters, "macs": cost.macs, "accuracy": accuracy(timing.path, data)}
        for cost, timing in zip(costs, timings, strict=True)
    ]
    report = {"dataset": data.name, "epochs": epochs, "ratio": ratio, "seed": seed, "files": rows}
    report["seconds"] = time.perf_counter() - start
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def to_table(report: dict[str, Any]) -> Table:
    """Return the report as a table."""
    table = Table(title=f"{report['dataset']}, seed {report['seed']}, {report['seconds']:.0f} s", box=box.SIMPLE_HEAD)
    table.add_column("file")
    for name in ("test\naccuracy", "params", "MACs\n(M)", "kB", "gzip\nkB", "median\nms", "x\nfirst"):
        table.add_column(name, justify="right")
    for row in report["files"]:
        counts = (f"{row['parameters']:,}", f"{row['macs'] / 1e6:.2f}")
        sizes = (f"{row[key] / 1000:,.0f}" for key in ("file_bytes", "gzip_bytes"))
        latency = (f"{row['median_ms']:.3f}", f"{row['ratio']:.2f}")
        table.add_row(Path(row["path"]).stem, f"{row['accuracy']:.2%}", *counts, *sizes, *latency)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run, and print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--dataset", default="mnist5k", help=DATASET_HELP)
    parser.add_argument("--epochs", type=int, default=10, help="epochs for the dense net, and again for fine-tuning")
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of the filters to prune, 0.05 to 0.95")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the images")
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder for models and report")
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs must be at least 1. Received: {options.epochs}.")
    if not 0.05 <= options.ratio <= 0.95:
        parser.error(f"--ratio must be a fraction from 0.05 to 0.95. Received: {options.ratio:g}.")
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be from 0 to {2**32 - 1}. Received: {options.seed}.")
    try:
        check_writable(options.out / "report.json")  # now, not after the training
        data = load_images(options.dataset)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    report = run(data, options.epochs, options.ratio, options.seed, options.out)
    console.print(to_table(report))
    console.print(f"Models and report.json are in {options.out}")


if __name__ == "__main__":
    main()
