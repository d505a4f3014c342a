"""Lottery ticket: how few weights of an MLP can be trained alone, if they begin where they once began.

    python recipes/lottery_ticket.py

`iterate` trains the net, prunes the smallest weights of every layer, and trains what is left, again and again. In three
ways: from the initial weights, from those after the first epoch (early), and, as a control, from new random ones. A
winning ticket is a sparse net that learns well from its own first weights, and worse from others. The picture shows
accuracy over what is left; the last ticket is saved, and its trained net becomes a `.tflite`.

Reference: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019, https://arxiv.org/abs/1803.03635
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import example_tools as tools
import keras
import numpy as np
from example_data import LabelledData, load_images
from keras import layers
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

import tfprune

Curves: TypeAlias = dict[str, list[tuple[float, float]]]
FEW = 0.1
"""First weights matter where less than this share of the weights is left."""


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return an MLP of two hidden layers, LeNet-300-100."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.Flatten()(inputs)
    for units in (300, 100):
        x = layers.Dense(units, activation="relu", name=f"hidden_{units}")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def rounds(model: keras.Model, data: LabelledData, rewind: Any, options: argparse.Namespace) -> Any:
    """Train, prune and train again; test images are looked at after each round, and decide nothing."""
    return tfprune.iterate(
        model,
        (data.x_train, data.y_train),
        train=options.epochs,
        stop=tfprune.Stop(rounds=options.rounds),
        # As in the paper, the last layer loses half as fast: it is small, and a class without weights is lost.
        prune=tfprune.PruneWeights(lambda layer: options.fraction / (2 if layer.name == "logits" else 1)),
        rewind=rewind,
        options=tfprune.IterateOptions(
            validation=(data.x_test, data.y_test), fit={"batch_size": tools.BATCH_SIZE}, seed=options.seed
        ),
    )


def draw(path: Path, curves: Curves) -> None:
    """Draw accuracy over what is left, from all weights to few."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        densities, accuracies = zip(*points, strict=True)
        axes.plot(densities, accuracies, marker="o", markersize=4, label=name)
    axes.set(xscale="log", xlabel="weights left", ylabel="test accuracy")
    axes.set_xticks(densities, [f"{density:.1%}" for density in densities], rotation=45)
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(title="each round begins with")
    figure.savefig(path)


def compare(curves: Curves) -> None:
    """Print the accuracy of every round, and what first weights are worth where few weights are left."""
    densities = [density for density, _ in next(iter(curves.values()))]
    accuracies = np.array([[accuracy for _, accuracy in points] for points in curves.values()])
    rows = [
        (f"{density:.1%}", *map("{:.1%}".format, each)) for density, each in zip(densities, accuracies.T, strict=True)
    ]
    few = accuracies[:, np.array(densities) < FEW]
    if few.size:
        rows.append((f"mean below {FEW:.0%}", *map("{:.1%}".format, few.mean(axis=1))))
    tools.show(("weights left", *(name.replace(" ", "\n", 1) for name in curves)), rows)


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Find tickets in three ways, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out = tools.Steps(5), options.out
    model = build_model(data.x_train.shape[1:], data.num_classes)
    tools.compile_classifier(model, data, options.epochs, options.learning_rate)
    policies = {
        "initial weights": tfprune.InitialWeights(),
        "early weights": tfprune.Rewind(epoch=1),
        "new weights": tfprune.Reinitialize(),
    }
    found = {}
    for name, rewind in policies.items():
        step(f"{options.rounds} rounds, each from the {name}")
        found[name] = rounds(model, data, rewind, options)
        print(found[name].report)
    curves = {name: [(each.density, each.score) for each in each.report.rounds] for name, each in found.items()}
    draw(out / "accuracy.png", curves)

    step("Save the last ticket, and train the dense net to compare with")
    found["initial weights"].ticket.save(out / "ticket.npz")
    ticket = found["initial weights"].model
    ticket.save(out / "ticket.keras")
    tools.fit(model, data, options.epochs, options.learning_rate)
    model.save(out / "dense.keras")

    step("Export to .tflite, checked against Keras, and measure")
    calibration, as_sparse = data.x_train[:500], tfprune.ExportOptions(sparse=True)
    exports = [
        tfprune.export(model, out / "dense_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(
            ticket, out / "ticket_sparse.tflite", calibration=calibration, overwrite=True, options=as_sparse
        ),
        tfprune.export(ticket, out / "ticket_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
    ]
    files = tools.measure([model, ticket, ticket], exports, data.x_test, data.y_test)
    compare(curves)
    tools.tell_chance(curves["new weights"][0][1], len(data.x_test))
    columns = ("accuracy", "parameters", "zeros", "file_bytes", "gzip_bytes", "median_ms", "ratio")
    return tools.finish(options, files, step, columns, accuracy_by_density=curves)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(__doc__, out="lottery_ticket", epochs=5, epochs_help="of each training, 2 or more")
    parser.add_argument("--rounds", type=int, default=6, help="how often weights go, 1 to 30")
    parser.add_argument("--fraction", type=float, default=0.5, help="of the weights left go in a round, 0.05 to 0.9")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam, falls to zero, 1e-05 to 0.1")
    options, data = tools.parse(
        parser,
        arguments,
        lambda options: load_images(options.dataset),
        rounds=(1, 30),
        fraction=(0.05, 0.9),
        learning_rate=(1e-5, 0.1),
    )
    if options.epochs == 1:
        parser.error("--epochs must be at least 2 here, as some rounds go back to the first epoch. Received: 1.")
    run(data, options)


if __name__ == "__main__":
    main()
