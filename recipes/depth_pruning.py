"""Depth pruning: let training find out which residual blocks a network can do without, and take them out.

    python recipes/depth_pruning.py

`with_scaling_factors` puts a factor behind every residual branch. `SparseStructureSelection` trains these factors with
an L1 penalty, until those of needless blocks are exactly zero, and `shrink` removes the blocks: the network gets
shallower, which pays on devices where many small layers are slow.

Reference: Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
https://arxiv.org/abs/1707.01213
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
from tfprune.callbacks import SparseStructureSelection
from tfprune.layers import with_scaling_factors

# Factors move by the optimizer's learning rate, and Adam's is too small for them to arrive anywhere. Without weight
# decay, a branch makes up for a small factor by large weights.
SGD = functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True, weight_decay=1e-3)


def conv(x: Any, filters: int, strides: int = 1) -> Any:
    """Convolve and normalize."""
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def build_model(input_shape: tuple[int, ...], num_classes: int, blocks: int) -> keras.Model:
    """Return a ResNet of three stages with so many blocks each."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.MaxPooling2D()(layers.ReLU()(conv(inputs, 16)))
    for stage, filters in enumerate((16, 32, 64)):
        x = layers.ReLU()(conv(x, filters, 2)) if stage else x
        for number in range(blocks):
            branch = conv(layers.ReLU()(conv(x, filters)), filters)
            x = layers.ReLU()(layers.Add(name=f"stage{stage + 1}_block{number + 1}")([x, branch]))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(layers.GlobalAveragePooling2D()(x)))


def blocks_of(model: keras.Model) -> list[str]:
    """Return the names of the blocks: their additions."""
    return [layer.name for layer in model.layers if isinstance(layer, layers.Add)]


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, select blocks, shrink, fine-tune, export and measure; write everything to `out`, return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out, epochs = tools.Steps(5), options.out, options.epochs

    step("Train the net as it is, to compare with")
    dense = build_model(data.x_train.shape[1:], data.num_classes, options.blocks)
    tools.fit(dense, data, epochs, learning_rate=0.05, optimizer=SGD)
    dense.save(out / "dense.keras")

    step("Train it with factors that are pulled to zero")
    model = with_scaling_factors(build_model(data.x_train.shape[1:], data.num_classes, options.blocks))
    selection = SparseStructureSelection(options.strength)
    tools.fit(model, data, epochs, learning_rate=0.05, callbacks=[selection], optimizer=SGD)

    step("Shrink it and fine-tune")
    small = tfprune.shrink(model)
    left = blocks_of(small)
    tools.console.print(f"Blocks left: {len(left)} of {len(blocks_of(dense))}: {', '.join(left) or 'none'}")
    if len(left) == len(blocks_of(dense)):
        tools.console.print("No block is needless at this strength. Try a larger --strength, or more --epochs.")
    tools.fit(small, data, epochs, learning_rate=0.02, optimizer=SGD)
    small.save(out / "pruned.keras")

    step("Export to .tflite, checked against Keras")
    exports = tools.export_files(dense, small, small, data, out)

    step("Measure accuracy and latency")
    files = tools.measure([dense, small, small], exports, data.x_test, data.y_test)
    return tools.finish(options, files, step, blocks_before=blocks_of(dense), blocks_after=left)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__, out="depth_pruning", epochs=10, epochs_help="epochs for the dense net, for selection, for fine-tuning"
    )
    parser.add_argument("--blocks", type=int, default=3, help="blocks in each of the three stages, 1 to 20")
    parser.add_argument("--strength", type=float, default=0.1, help="how hard factors are pulled, 0.0 to 1.0")
    options, data = tools.parse(
        parser, arguments, lambda options: load_images(options.dataset), blocks=(1, 20), strength=(0.0, 1.0)
    )
    run(data, options)


if __name__ == "__main__":
    main()
