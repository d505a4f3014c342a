"""Wearable activity: a Conv1D net on the motion sensors of a smart watch, pruned to a budget of operations, int8.

    pip install --no-deps seglearn==1.2.5   # for its data file: seven exercises of the shoulder, ten people
    python recipes/wearable_activity.py

It trains on seven people and tests on the three others: a watch has to know what its next owner does. Windows are two
seconds of six sensors. `prune_channels` removes channels to meet `--macs`, then the small net is fine-tuned and
exported as int8. An app has to standardize its readings as `scaling` in report.json says.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import ACTIVITY_HELP, LabelledData, load_activity
from keras import layers

import tfprune


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a net of three convolutions over time."""
    inputs = keras.Input(input_shape, name="window")
    x = inputs
    for filters in (64, 96, 128):
        x = layers.Conv1D(filters, 5, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, prune to the budget, fine-tune, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out = tools.Steps(4), options.out

    step("Train the dense net")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, options.epochs, learning_rate=1e-3)
    dense.save(out / "dense.keras")

    step(f"Prune it to {options.macs:.0%} of its operations, and fine-tune")
    # In one shot by the norms of filters, which needs no data. The budget is met exactly, as far as whole channels can.
    small = tfprune.prune_channels(dense, budget=tfprune.Budget(macs=options.macs))
    tools.fit(small, data, options.epochs, learning_rate=5e-4)
    small.save(out / "pruned.keras")

    step("Export to .tflite, checked against Keras")
    exports = tools.export_files(dense, small, small, data, out)

    step("Measure accuracy and latency")
    files = tools.measure([dense, small, small], exports, data.x_test, data.y_test)
    return tools.finish(options, files, step, scaling=data.scaling, classes=data.classes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__,
        out="wearable_activity",
        epochs=20,
        epochs_help="epochs for the dense net, and again for fine-tuning",
        dataset="smart_watch",
        dataset_help=ACTIVITY_HELP,
    )
    parser.add_argument("--macs", type=float, default=0.25, help="fraction of the operations to keep, 0.05 to 0.95")
    options, data = tools.parse(parser, arguments, lambda options: load_activity(options.dataset), macs=(0.05, 0.95))
    run(data, options)


if __name__ == "__main__":
    main()
