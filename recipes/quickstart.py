"""Quickstart: train a small residual network, prune it during `fit`, shrink it, and ship it as an int8 `.tflite`.

    python recipes/quickstart.py

It takes one to two minutes on two CPU cores, and needs no download: the default data are 5,000 handwritten digits.
At the end it prints what the three files (dense float, pruned float, pruned int8) cost and how accurate they are on
images that the training never saw.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import LabelledData, load_images
from keras import layers

import tfprune
from tfprune.callbacks import FPGM

console = tools.console


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


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, prune, shrink, export and measure; write the models and `report.json`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out, epochs = tools.Steps(5), options.out, options.epochs

    step("Train the dense net")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, epochs, learning_rate=2e-3)
    dense.save(out / "dense.keras")

    step(f"Prune {options.ratio:.0%} of the filters while it trains on")
    model = keras.models.load_model(out / "dense.keras")
    # Hard FPGM chooses the filters when fit starts and holds them at zero. A few epochs repair the worst; the rest is
    # faster after shrinking, in the small net. Half of the first learning rate keeps more of what the net knows.
    tools.fit(model, data, max(1, epochs // 5), learning_rate=1e-3, callbacks=[FPGM(options.ratio)])

    step("Shrink it and fine-tune")
    small = tfprune.shrink(model)
    tools.fit(small, data, epochs, learning_rate=1e-3)
    small.save(out / "pruned.keras")

    step("Export to .tflite, checked against Keras")
    exports = tools.export_files(dense, small, small, data, out)

    step("Measure accuracy and latency")
    return tools.finish(options, tools.measure([dense, small, small], exports, data.x_test, data.y_test), step)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__, out="quickstart", epochs=10, epochs_help="epochs for the dense net, and again for fine-tuning"
    )
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of the filters to prune, 0.05 to 0.95")
    options, data = tools.parse(parser, arguments, lambda options: load_images(options.dataset), ratio=(0.05, 0.95))
    run(data, options)


if __name__ == "__main__":
    main()
