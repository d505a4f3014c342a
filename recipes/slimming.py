"""Network slimming: let training find how wide each layer has to be, by the gammas of its BatchNormalization.

    python recipes/slimming.py

`NetworkSlimming` pulls all gammas towards zero while the net learns, then prunes the channels with the smallest ones
of the whole network: layers that matter keep more. `shrink` removes them, and fine-tuning repairs the rest. The
table of layers shows where the channels went.

Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
https://arxiv.org/abs/1708.06519
"""

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import LabelledData, load_images
from keras import layers

import tfprune
from tfprune.callbacks import NetworkSlimming

HALF = keras.initializers.Constant(0.5)  # as in the paper: gammas have a shorter way to zero
# The pull is a part of the gradient: Adam would scale it with the rest, plain SGD leaves it as it is.
SGD = functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True)


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a VGG-like net: every convolution is followed by a BatchNormalization."""
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for stage, filters in enumerate((32, 64, 128)):
        x = layers.MaxPooling2D()(x) if stage else x
        for number in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{stage + 1}_{number}")(x)
            x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, gamma_initializer=HALF)(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(layers.GlobalAveragePooling2D()(x)))


def widths(dense: keras.Model, small: keras.Model) -> dict[str, tuple[int, int]]:
    """Return the filters of every convolution, before and after."""
    convolutions = [layer.name for layer in dense.layers if isinstance(layer, layers.Conv2D)]
    return {name: (dense.get_layer(name).filters, small.get_layer(name).filters) for name in convolutions}


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, slim, shrink, fine-tune, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out, epochs = tools.Steps(5), options.out, options.epochs

    step("Train the net without slimming, to compare with")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, epochs, learning_rate=0.05, optimizer=SGD)
    dense.save(out / "dense.keras")

    step(f"Train it with a pull on its gammas, and prune {options.ratio:.0%} of all channels")
    model = build_model(data.x_train.shape[1:], data.num_classes)
    slimming = NetworkSlimming(options.strength, options.ratio, prune_at=epochs)
    tools.fit(model, data, epochs, learning_rate=0.05, callbacks=[slimming], optimizer=SGD)

    step("Shrink it and fine-tune")
    small = tfprune.shrink(model)
    tools.fit(small, data, epochs, learning_rate=0.02, optimizer=SGD)
    small.save(out / "pruned.keras")

    step("Export to .tflite, checked against Keras")
    exports = tools.export_files(dense, small, small, data, out)

    step("Measure accuracy and latency")
    files, filters = tools.measure([dense, small, small], exports, data.x_test, data.y_test), widths(dense, small)
    tools.show(("layer", "filters", "left"), [(name, *map(str, counts)) for name, counts in filters.items()])
    return tools.finish(options, files, step, filters=filters)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__, out="slimming", epochs=10, epochs_help="epochs for the dense net, for slimming, and for fine-tuning"
    )
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of all channels to prune, 0.05 to 0.95")
    parser.add_argument("--strength", type=float, default=1e-3, help="how hard gammas are pulled, 0.0 to 1.0")
    options, data = tools.parse(
        parser, arguments, lambda options: load_images(options.dataset), ratio=(0.05, 0.95), strength=(0.0, 1.0)
    )
    run(data, options)


if __name__ == "__main__":
    main()
