"""Sparse training: an MLP that is 90% zeros from its first step, and a file that is small because of it.

    python recipes/sparse_training.py --method rigl

No dense net is trained: RigL, SET and GraNet move a few weights to where they serve best while training goes on;
`static` leaves them where chance has put them, and is what the others have to beat. `LayerwiseDensity` logs what is
left of every layer. Sparse storage makes the .tflite smaller, and gzip makes any file with zeros smaller. No file
gets faster: phones compute with dense kernels. To be faster, remove filters as the other recipes do.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import example_tools as tools
import keras
from example_data import LabelledData, load_images
from keras import layers

import tfprune
from tfprune.callbacks import SET, GraNet, LayerwiseDensity, RigL, StaticSparsity
from tfprune.schedules import Constant, Cosine, Polynomial

METHODS = ("rigl", "granet", "set", "static")


def build_model(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return an MLP of two hidden layers, LeNet-300-100."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.Flatten()(inputs)
    for units in (300, 100):
        x = layers.Dense(units, activation="relu", name=f"hidden_{units}")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x))


def sparsifier(method: str, sparsity: float, num_steps: int) -> keras.callbacks.Callback:
    """Return the callback of a method, with an update of the masks about fifty times in the training."""
    # The papers' 100 steps are for trainings of many thousands. RigL gives a step to each update, so not too often.
    frequency = max(4, num_steps // 50)
    if method == "rigl":
        return RigL(sparsity, drop=Cosine(0.3, frequency=frequency))
    if method == "set":
        return SET(sparsity, drop=Constant(0.3, frequency=frequency))
    if method == "granet":
        return GraNet(Polynomial(sparsity, initial=min(0.5, sparsity), frequency=frequency))
    return StaticSparsity(sparsity)


def run(data: LabelledData, options: argparse.Namespace) -> dict[str, Any]:
    """Train dense and sparse, export and measure; write everything to `out`, and return the report."""
    keras.utils.set_random_seed(options.seed)
    step, out = tools.Steps(4), options.out

    step("Train a dense net, to compare with")
    dense = build_model(data.x_train.shape[1:], data.num_classes)
    tools.fit(dense, data, options.epochs, learning_rate=1e-3)
    dense.save(out / "dense.keras")

    step(f"Train a net that is {options.sparsity:.0%} zeros from scratch, by {options.method}")
    sparse = build_model(data.x_train.shape[1:], data.num_classes)
    # Sparse nets learn more slowly: they get twice the time.
    epochs = 2 * options.epochs
    method = sparsifier(options.method, options.sparsity, epochs * tools.steps_per_epoch(data))
    history = tools.fit(sparse, data, epochs, learning_rate=2e-3, callbacks=[method, LayerwiseDensity()])
    sparse.save(out / "sparse.keras")
    rows = [(row.name, f"{row.weights:,}", f"{row.living:,}") for row in tfprune.layerwise_density(sparse).kernels]
    tools.show(("layer", "weights", "alive"), rows)

    step("Export to .tflite, checked against Keras")
    calibration, as_sparse = data.x_train[:500], tfprune.ExportOptions(sparse=True)
    exports = [
        tfprune.export(dense, out / "dense_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(sparse, out / "sparse_float.tflite", calibration=calibration, overwrite=True),
        tfprune.export(
            sparse, out / "sparse_stored.tflite", calibration=calibration, overwrite=True, options=as_sparse
        ),
        tfprune.export(sparse, out / "sparse_int8.tflite", quantize="int8", calibration=calibration, overwrite=True),
    ]

    step("Measure accuracy and latency")
    files = tools.measure([dense, sparse, sparse, sparse], exports, data.x_test, data.y_test)
    columns = ("accuracy", "parameters", "zeros", "file_bytes", "gzip_bytes", "median_ms", "ratio")
    density = {name: logged for name, logged in history.history.items() if name.startswith("density/")}
    return tools.finish(options, files, step, columns, density=density)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and run."""
    parser = tools.command_line(
        __doc__,
        out="sparse_training",
        epochs=20,
        epochs_help="epochs for the dense net; twice these for the sparse one",
    )
    parser.add_argument("--method", choices=METHODS, default="rigl", help="how the sparse net rewires itself")
    parser.add_argument(
        "--sparsity", type=float, default=0.9, help="fraction of the weights that are zero, 0.6 to 0.99"
    )
    # With fewer zeros than that, their positions take more room than they save.
    options, data = tools.parse(parser, arguments, lambda options: load_images(options.dataset), sparsity=(0.6, 0.99))
    run(data, options)


if __name__ == "__main__":
    main()
