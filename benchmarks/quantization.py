"""From a trained network to an int8 file for phones: tfprune's way and TF-MOT's, at equal training epochs.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install "tfprune[benchmarks]"          # TF-MOT and tf_keras
    python benchmarks/quantization.py          # about half an hour; goes on where it was stopped

Fashion-MNIST, the first 20,000 training images; accuracy on the 10,000 test images of the finished `.tflite`. A
ResNet-20 (8, 16 and 32 filters) is trained with SGD and a cosine, and then made small in two ways, with as many epochs
each:

- tfprune: L1 one-shot pruning to 50% of the MACs, fine-tuning, `quantize_aware`, training, `export`. Also, from the
  same pruned float network, int8 by calibration alone.
- TF-MOT, on the same network made with tf_keras: `prune_low_magnitude` to 50% zeros, `strip_pruning`, training with
  quantization that keeps the zeros (PQAT), and TensorFlow's converter.

`--full` takes all images, 16 filters and three times the epochs. Latency is that of the files over the dense int8 file,
in turns, one thread, on this machine.

Claims: int8 after quantization-aware training is within 0.3 points of the pruned float network, mean over the seeds;
the file of tfprune is faster than TF-MOT's, and smaller.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _fits import resnet20_of
from _shared import Claim, arguments, conclude, note
from dynamic_sparse import fashion_mnist, stored, write

import tfprune
from tfprune.criteria import l1_norm
from tfprune.files import gzip_size
from tfprune.runtime import TFLiteModel

SETTINGS: dict[str, Any] = {
    "train": 20000,
    "width": 8,
    "dense_epochs": 8,
    "prune_epochs": 4,
    "quantize_epochs": 2,
    "learning_rates": [0.1, 0.05, 0.005],
    "batch": 128,
    "latency_runs": 200,
}
FULL = {"train": 60000, "width": 16, "dense_epochs": 24, "prune_epochs": 12, "quantize_epochs": 6}
QUICK = {"train": 256, "width": 4, "dense_epochs": 1, "prune_epochs": 1, "quantize_epochs": 1, "latency_runs": 5}
LEFT, SPARSITY, ALLOWED_LOSS = 0.5, 0.5, 0.3
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def fit(
    library: Any, model: Any, data: Data, settings: Mapping[str, Any], phase: int, callbacks: Sequence[Any] = ()
) -> Any:
    """Train for the epochs of a phase (0 dense, 1 pruned, 2 quantized) along one cosine, and return the model."""
    epochs = settings[("dense_epochs", "prune_epochs", "quantize_epochs")[phase]]
    steps = epochs * -(-settings["train"] // settings["batch"])
    rate = library.optimizers.schedules.CosineDecay(settings["learning_rates"][phase], steps)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    model.fit(data[0], data[1], settings["batch"], epochs, verbose=0, callbacks=list(callbacks))
    return model


def ours(data: Data, settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Go tfprune's way, and return accuracies; the files stay in the folder."""
    keras.utils.set_random_seed(seed)
    dense = fit(keras, resnet20_of(keras, settings["width"], (28, 28, 1), 0.9), data, settings, 0)
    calibration = data[0][:500]
    tfprune.export(dense, folder / "dense.tflite", quantize="int8", calibration=calibration)
    budget = tfprune.Budget(macs=LEFT)
    small = fit(keras, tfprune.prune_channels(dense, budget=budget, criterion=l1_norm), data, settings, 1)
    tfprune.export(small, folder / "calibrated.tflite", quantize="int8", calibration=calibration)
    aware = fit(keras, tfprune.quantize_aware(small), data, settings, 2)
    report = tfprune.export(aware, folder / "tfprune.tflite", quantize="int8", calibration=calibration)
    return {
        "dense_float": _accuracy(dense.predict(data[2], 500, verbose=0), data),
        "pruned_float": _accuracy(small.predict(data[2], 500, verbose=0), data),
        "aware_float": _accuracy(aware.predict(data[2], 500, verbose=0), data),
        "macs_left": tfprune.profile(small).macs / tfprune.profile(dense).macs,
        "max_error_lsb": report.outputs[0].max_error_lsb,
        "left_in_float": [each.name for each in report.float_operators],
    }


def theirs(data: Data, settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Go TF-MOT's way: zeros, and quantization-aware training that keeps them."""
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    dense = fit(tf_keras, resnet20_of(tf_keras, settings["width"], (28, 28, 1), 0.9), data, settings, 0)
    sparsity, quantization = tfmot.sparsity.keras, tfmot.quantization.keras
    steps = settings["prune_epochs"] * -(-settings["train"] // settings["batch"])
    schedule = sparsity.PolynomialDecay(0.0, SPARSITY, 0, steps // 2, frequency=10)
    pruned = sparsity.prune_low_magnitude(dense, pruning_schedule=schedule)
    pruned = sparsity.strip_pruning(fit(tf_keras, pruned, data, settings, 1, [sparsity.UpdatePruningStep()]))
    pruned_accuracy = _accuracy(pruned.predict(data[2], 500, verbose=0), data)
    annotated = quantization.quantize_annotate_model(pruned)
    scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    aware = fit(tf_keras, quantization.quantize_apply(annotated, scheme), data, settings, 2)
    converter = tf.lite.TFLiteConverter.from_keras_model(aware)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "tfmot.tflite").write_bytes(converter.convert())
    return {"pruned_float": pruned_accuracy}


def run(seed: int, settings: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """Go both ways with one seed, and measure the files side by side."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row: dict[str, Any] = {"seed": seed, "tfprune": ours(data, settings, seed, folder)}
        row["tfmot"] = theirs(data, settings, seed, folder)
        paths = [folder / f"{each}.tflite" for each in ("dense", "calibrated", "tfprune", "tfmot")]
        timings = tfprune.benchmark(*paths, runs=settings["latency_runs"]).files
        row["files"] = {}
        for path, timing in zip(paths, timings, strict=True):
            content = path.read_bytes()
            row["files"][path.stem] = {
                "accuracy": _accuracy(np.asarray(TFLiteModel(content).predict(data[2])), data),
                "file_bytes": len(content),
                "gzip_bytes": gzip_size(content),
                "latency_ratio": timing.ratio,
                "latency_ratio_quartiles": [timing.ratio_low, timing.ratio_high],
            }
    return row


def _accuracy(outputs: np.ndarray, data: Data) -> float:
    return float((outputs.argmax(axis=-1) == data[3]).mean())


def check(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Return the claims."""
    losses = [100 * (row["tfprune"]["pruned_float"] - row["files"]["tfprune"]["accuracy"]) for row in rows]
    faster = [row["files"]["tfprune"]["latency_ratio"] / row["files"]["tfmot"]["latency_ratio"] for row in rows]
    smaller = [row["files"]["tfprune"]["gzip_bytes"] / row["files"]["tfmot"]["gzip_bytes"] for row in rows]
    return [
        Claim(
            "accuracy lost by int8 after quantization-aware training, points, mean",
            float(np.mean(losses)),
            ALLOWED_LOSS,
        ),
        Claim("largest share of the MACs", max(row["tfprune"]["macs_left"] for row in rows), LEFT),
        Claim("latency over TF-MOT's file, median", float(np.median(faster)), 1.0),
        Claim("gzip bytes over TF-MOT's file, mean", float(np.mean(smaller)), 1.0),
        Claim("operators left in float", sum(len(row["tfprune"]["left_in_float"]) for row in rows), 0),
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="all images, more epochs, a wider network: hours")
    size.add_argument("--quick", action="store_true", help="tiny, to try the script; its numbers mean nothing")
    options = parser.parse_args(command_line)
    if options.quick and options.out == parser.get_default("out"):
        parser.error("--quick measures nothing worth keeping: give --out too.")
    settings = {**SETTINGS, **(FULL if options.full else QUICK if options.quick else {})}
    store = options.out.with_suffix(".partial.json")
    rows = [row for row in stored(options.out, store, settings) if row["seed"] < options.seeds]
    x_train, y_train, x_test, y_test = fashion_mnist(settings["train"])
    data = (x_train.reshape(-1, 28, 28, 1), y_train, x_test.reshape(-1, 28, 28, 1), y_test)
    for seed in sorted(set(range(options.seeds)) - {row["seed"] for row in rows}):
        rows.append(run(seed, settings, data))
        write(store, {"settings": settings, "runs": rows})
        told = ", ".join(f"{name} {each['accuracy']:.2%}" for name, each in rows[-1]["files"].items())
        note(f"seed {seed}: pruned float {rows[-1]['tfprune']['pruned_float']:.2%}; int8: {told}")
    status = conclude(options.out, check(rows), settings, {"runs": rows})
    store.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
