"""Quantization only: the same network as int8 by calibration, and as int8 after training with its rounding.

    python recipes/quantization_aware.py

Nothing is pruned here. Calibration needs no training and is often enough; where it loses accuracy, a few epochs of
`quantize_aware` bring it back. The table shows both beside the float file: accuracy on the test set, and the share of
test images that a file puts into the same class as the float file does.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import LabelledData, load_images
from keras import layers

import tfprune


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return a small MobileNet: depthwise convolutions are what int8 is hardest on."""
    inputs = keras.Input(input_shape, name="image")
    x = inputs
    for number, (filters, strides) in enumerate(((16, 2), (32, 1), (64, 2), (64, 1), (96, 2), (96, 1))):
        if number:
            x = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
            x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
            strides = 1
        size = 1 if number else 3
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(layers.GlobalAveragePooling2D()(x)))


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train, quantize in both ways, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out = tools.Steps(4), options.out

    step("Train the net in float")
    model = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(model, data, options.epochs, learning_rate=3e-3)
    model.save(out / "float.keras")

    step("Train it on with the rounding of int8")
    aware = tfprune.quantize_aware(model)
    # A tenth of the learning rate or less: the weights only have to find their place between the steps of int8.
    tools.fit(aware, data, max(1, options.epochs // 5), learning_rate=2e-4)
    aware.save(out / "quantize_aware.keras")

    step("Export to .tflite, checked against Keras")
    calibration = data.x_train[:500]
    exports = [
        tfprune.export(model, out / "float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(model, out / "calibrated_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
        tfprune.export(aware, out / "aware_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
    ]

    step("Measure accuracy and latency")
    files = tools.measure([model, model, tfprune.strip(aware)], exports, data.x_test, data.y_test)
    columns = ("accuracy", "agreement", "parameters", "file_bytes", "gzip_bytes", "median_ms", "ratio")
    return tools.finish(options, files, step, columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__, out="quantization_aware", epochs=20, epochs_help="epochs in float; a fifth of them follow for int8"
    )
    options, data = tools.parse(parser, arguments, lambda options: load_images(options.dataset))
    run(data, options)


if __name__ == "__main__":
    main()
