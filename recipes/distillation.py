"""Distillation: what a pruned network gets back from its dense one as a teacher, with labels, with few, and with none.

    python recipes/distillation.py

A network often outlives its labels: the model is there, and images are, but nobody can label them again. Nothing that
makes it smaller here needs any: images say which channels go and how the layers that read them are refitted, and
`distill` lets the small network learn what the dense one answers. It is fine-tuned in five ways, from the same weights
and for as many steps; the one without labels becomes the int8 `.tflite`. The dense network has learned from all labels.

Reference: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
import numpy as np
from example_data import LabelledData, load_images
from keras import layers

import tfprune

NO_LABEL = -1


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a VGG-like net of six convolutions."""
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for filters in (16, 32, 64):
        x = layers.MaxPooling2D()(x)
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(layers.GlobalAveragePooling2D()(x)))


def some_labels(y: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the labels of as many samples of each class, and `NO_LABEL` for all others."""
    kept = np.full_like(y, NO_LABEL)
    random = np.random.default_rng(seed)
    for label in np.unique(y):
        places = random.permutation(np.flatnonzero(y == label))
        chosen = places[: max(1, round(fraction * len(places)))]
        kept[chosen] = label
    return kept


def fine_tune(
    small: keras.Model, data: LabelledData, y: np.ndarray | None, teacher: keras.Model | None, epochs: int
) -> None:
    """Train a network in place by labels, by a teacher, or by both."""
    x = data.x_train
    if teacher is None and y is not None:
        # Images without a label teach nothing here. Those with one are repeated, for as many steps as in other ways.
        x, y = (np.resize(each[y != NO_LABEL], each.shape) for each in (x, y))
    student = small if teacher is None else tfprune.distill(small, teacher, loss="softmax")
    tools.compile_classifier(student, data, epochs, 1e-3, ignore_class=NO_LABEL)
    student.fit(x, y, tools.BATCH_SIZE, epochs, verbose=tools.verbosity())


def ways(data: LabelledData, options: argparse.Namespace) -> dict[str, tuple[np.ndarray | None, bool]]:
    """Return the labels of each way to fine-tune, and whether the dense network teaches; the last way needs none."""
    every, few = data.y_train, some_labels(data.y_train, options.labels, options.seed)
    return {
        "all labels": (every, False),
        "all labels and teacher": (every, True),
        "few labels": (few, False),
        "few labels and teacher": (few, True),
        "teacher": (None, True),
    }


def score(model: keras.Model, data: LabelledData) -> float:
    """Return the share of test images that a network puts into the right class."""
    return float(np.mean(model.predict(data.x_test, verbose=0).argmax(axis=1) == data.y_test))


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, prune, fine-tune in all ways, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out = tools.Steps(5), options.out

    step("Train the dense net, with all labels")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, options.epochs, learning_rate=2e-3)
    dense.save(out / "dense.keras")

    step(f"Prune it to {options.macs:.0%} of its operations, by images alone")
    # Given data, it chooses by what the answers lose (no labels), and refits the layers that read what is gone.
    small = tfprune.prune_channels(dense, budget=tfprune.Budget(macs=options.macs), data=data.x_train)
    small.save(out / "pruned.keras")
    rows: list[tuple[str, int, float]] = [
        ("dense", len(data.y_train), score(dense, data)),
        ("pruned", 0, score(small, data)),
    ]

    step("Fine-tune it in five ways")
    for way, (y, taught) in ways(data, options).items():
        labels = 0 if y is None else int(np.count_nonzero(y != NO_LABEL))
        tools.console.print(f"With {way} ({labels:,} labels):")
        keras.utils.set_random_seed(options.seed)  # the same order of images
        small = keras.models.load_model(out / "pruned.keras", compile=False)
        fine_tune(small, data, y, dense if taught else None, max(1, options.epochs // 2))
        small.save(out / f"{way.replace(' ', '_')}.keras")
        rows.append((f"pruned, then {way}", labels, score(small, data)))

    step("Export what has seen no label to .tflite, checked")
    exports = tools.export_files(dense, small, small, data, out)

    step("Measure accuracy and latency")
    files = tools.measure([dense, small, small], exports, data.x_test, data.y_test)
    shown = [(network, f"{labels:,}", f"{accuracy:.1%}") for network, labels, accuracy in rows]
    tools.show(("network", "labels", "test accuracy"), shown)
    tools.tell_chance(rows[0][2], len(data.x_test))
    return tools.finish(options, files, step, networks=rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__, out="distillation", epochs=6, epochs_help="epochs for the dense net; half of them for each fine-tuning"
    )
    parser.add_argument("--macs", type=float, default=0.33, help="fraction of the operations to keep, 0.05 to 0.95")
    parser.add_argument(
        "--labels", type=float, default=0.1, help="fraction of labels where there are few, 0.001 to 1.0"
    )
    options, data = tools.parse(
        parser, arguments, lambda options: load_images(options.dataset), macs=(0.05, 0.95), labels=(0.001, 1.0)
    )
    run(data, options)


if __name__ == "__main__":
    main()
