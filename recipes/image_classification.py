"""Image classification: your folder of photos, a backbone from keras.applications, pruned and shipped as int8.

    python recipes/image_classification.py --dataset photos/            # photos/CLASS/*.jpg, ImageNet weights
    python recipes/image_classification.py --weights none --image-size 48 --epochs 15   # no download

With ImageNet weights a new head is trained first, then the whole net. FPGM prunes filters while it trains on, `shrink`
removes them. The model takes pixels from 0 to 255 and scales them itself as its backbone expects; the int8 file takes
bytes, and carries the names of the classes for the task libraries of phones.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import example_tools as tools
import keras
import numpy as np
from example_backbones import backbones
from example_data import PHOTOS_HELP, LabelledData, load_photos
from keras import layers

import tfprune
from tfprune.callbacks import FPGM


def load(options: argparse.Namespace) -> LabelledData:
    """Return the images, in a size that the backbone takes."""
    backbones()[options.backbone].check_size(options.backbone, options.image_size)
    return load_photos(options.dataset, options.image_size)


def build_model(data: LabelledData, backbone: str, weights: str) -> tuple[keras.Model, keras.Model]:
    """Return the model, which takes pixels from 0 to 255, and the backbone in it."""
    chosen, shape = backbones()[backbone], data.x_train.shape[1:]
    base = chosen.build(
        include_top=False, weights=None if weights == "none" else weights, input_shape=shape, pooling="avg"
    )
    for layer in base.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # those of ImageNet's long training would be stale after a few hundred steps
    inputs = keras.Input(shape, name="image")
    x = layers.Dropout(0.2)(base(scaling_layer(chosen.preprocess_input)(inputs)))
    return keras.Model(inputs, layers.Dense(data.num_classes, name="logits")(x)), base


def scaling_layer(preprocess_input: Callable[[np.ndarray], np.ndarray]) -> layers.Layer:
    """Return a fixed 1x1 convolution that scales pixels, and swaps red and blue, as a backbone expects it.

    As single operations, swapping and subtracting would blur the pixels of an int8 file; a convolution is exact.
    """
    zero = np.zeros((1, 1, 3, 3), "float32")
    bias = preprocess_input(zero.copy())[0, 0, 0]  # it changes what it is given
    kernel = (preprocess_input(zero + 255 * np.eye(3, dtype="float32")) - bias) / 255
    layer = layers.Conv2D(3, 1, trainable=False, name="scaling")
    layer.build((None, None, None, 3))
    layer.set_weights([kernel.reshape(1, 1, 3, 3), bias])
    return layer


def run(data: LabelledData, options: argparse.Namespace, dense: keras.Model, base: keras.Model) -> dict[str, Any]:
    """Train, prune, shrink, export and measure; write everything to `out`, and return the report."""
    step, out, epochs = tools.Steps(5), options.out, options.epochs
    pretrained = options.weights != "none"

    step("Train the dense net")
    if pretrained:  # first the head alone: gradients of random weights would spoil the others
        base.trainable = False
        tools.fit(dense, data, epochs, learning_rate=1e-3)
        base.trainable = True
    tools.fit(dense, data, epochs, learning_rate=3e-4 if pretrained else 2e-3)
    dense.save(out / "dense.keras")

    step(f"Prune {options.ratio:.0%} of the filters while it trains on")
    model = keras.models.load_model(out / "dense.keras")
    pruning = FPGM(options.ratio, exclude=[model.get_layer("scaling")])
    tools.fit(model, data, max(1, epochs // 5), learning_rate=3e-4, callbacks=[pruning])

    step("Shrink it and fine-tune")
    small = tfprune.shrink(model)
    tools.fit(small, data, epochs, learning_rate=3e-4 if pretrained else 1e-3)
    small.save(out / "pruned.keras")

    step("Export to .tflite, checked against Keras")
    # A black and a white image among them: pixels then go into the int8 file as they are, whatever the others hold.
    ends = np.stack([np.zeros_like(data.x_train[0]), np.full_like(data.x_train[0], 255)])
    calibration = np.concatenate([ends, data.x_train[:300]]).astype("float32")
    names = data.classes or tuple(str(number) for number in range(data.num_classes))
    labels = tfprune.ExportOptions(metadata=tfprune.ImageMetadata(names, mean=0.0, std=1.0))
    exports = [
        tfprune.export(dense, out / "dense_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(small, out / "pruned_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(
            *(small, out / "pruned_int8.tflite"),
            quantize="int8",
            calibration=calibration,
            io_dtype="uint8",
            overwrite=True,
            options=labels,
        ),
    ]

    step("Measure accuracy and latency")
    return tools.finish(
        options, tools.measure([dense, small, small], exports, data.x_test, data.y_test), step, classes=names
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__,
        out="image_classification",
        epochs=4,
        epochs_help="epochs for the head, for the whole net, and for fine-tuning; from scratch it needs 15 or more",
        dataset_help=PHOTOS_HELP,
    )
    parser.add_argument(
        "--backbone", choices=sorted(backbones()), metavar="NAME", default="MobileNetV2", help="see keras.applications"
    )
    parser.add_argument("--weights", default="imagenet", help="imagenet (downloaded by Keras), none, or a weights file")
    parser.add_argument(
        "--image-size",
        type=int,
        default=96,
        help="height and width of the images, 32 to 512; Xception takes 71 and more, Inception 75",
    )
    parser.add_argument("--ratio", type=float, default=0.3, help="fraction of the filters to prune, 0.05 to 0.95")
    options, data = tools.parse(
        parser,
        arguments,
        load,
        ratio=(0.05, 0.95),
        image_size=(32, 512),
    )
    keras.utils.set_random_seed(options.seed)
    try:
        model, base = build_model(data, options.backbone, options.weights)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        advice = "" if options.weights == "none" else " Without a network, train from scratch: --weights none."
        parser.error(f"Could not build {options.backbone} with the weights {options.weights!r}: {error}.{advice}")
    run(data, options, model, base)


if __name__ == "__main__":
    main()
