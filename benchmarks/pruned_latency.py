"""Claim: half of the filters pruned and shrunken away makes published networks faster, as float and as int8 `.tflite`.

    python benchmarks/pruned_latency.py

MobileNetV2 and ResNet50 from keras.applications, with random weights: latency depends on shapes, not on values, and
accuracy is not the question here. Each is pruned with FPGM(0.5), shrunken and exported; dense and pruned files then
run in turns in one process, float against float and int8 against int8. The claim is on the upper quartile of the
pairwise ratios: pruned must be faster in at least three of four pairs of runs. One thread of this machine's CPU: a
phone's ratios differ.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note

import tfprune
from tfprune.callbacks import FPGM

Build = Callable[..., keras.Model]
NETWORKS: dict[str, tuple[Build, dict[str, Any]]] = {
    "MobileNetV2 0.35 at 96 px": (keras.applications.MobileNetV2, {"input_shape": (96, 96, 3), "alpha": 0.35}),
    "MobileNetV2 1.0 at 96 px": (keras.applications.MobileNetV2, {"input_shape": (96, 96, 3), "alpha": 1.0}),
    "ResNet50 at 64 px": (keras.applications.ResNet50, {"input_shape": (64, 64, 3)}),
}


def prune(model: keras.Model, ratio: float, images: np.ndarray) -> keras.Model:
    """Return the model without that fraction of its filters: what a `fit` with the callback and `shrink` leave."""
    # A learning rate of 0 keeps the random weights: hard FPGM prunes when `fit` starts.
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy())
    model.fit(images[:2], np.zeros(2, "int32"), verbose=0, callbacks=[FPGM(ratio)])
    return tfprune.shrink(model)


def compare(name: str, ratio: float, runs: int, seed: int) -> dict[str, Any]:
    """Export a network dense and pruned, and time the files in turns."""
    keras.utils.set_random_seed(seed)
    build, config = NETWORKS[name]
    model = build(weights=None, classes=10, **config)
    images = np.random.default_rng(seed).uniform(-1, 1, (20, *config["input_shape"])).astype("float32")
    macs = tfprune.profile(model).macs
    row: dict[str, Any] = {"network": name, "macs_dense": macs}
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            key: Path(folder) / f"{key}.tflite" for key in ("dense_float", "pruned_float", "dense_int8", "pruned_int8")
        }
        _export_both(model, paths["dense_float"], paths["dense_int8"], images)
        small = prune(model, ratio, images)
        row["macs_pruned"] = tfprune.profile(small).macs
        row["macs_ratio"] = row["macs_pruned"] / macs
        _export_both(small, paths["pruned_float"], paths["pruned_int8"], images)
        for kind in ("float", "int8"):
            dense, pruned = tfprune.benchmark(paths[f"dense_{kind}"], paths[f"pruned_{kind}"], runs=runs).files
            row[kind] = {
                "dense_ms": dense.median_ms,
                "pruned_ms": pruned.median_ms,
                "latency_ratio": pruned.ratio,
                "latency_ratio_quartiles": [pruned.ratio_low, pruned.ratio_high],
                "bytes_ratio": pruned.file_bytes / dense.file_bytes,
            }
    return row


def _export_both(model: keras.Model, float_path: Path, int8_path: Path, images: np.ndarray) -> None:
    tfprune.export(model, float_path, calibration=images)
    tfprune.export(model, int8_path, quantize="int8", calibration=images)


def check(measured: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return one claim per network and kind of file."""
    return [
        Claim(
            f"{row['network']}, {kind}: pruned over dense latency, upper quartile",
            row[kind]["latency_ratio_quartiles"][1],
            1.0,
        )
        for row in measured
        for kind in ("float", "int8")
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of the filters to prune (default: 0.5)")
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each file (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights (default: 0)")
    options = parser.parse_args(command_line)
    if not 0 < options.ratio < 1:
        parser.error(f"--ratio must be between 0 and 1. Received: {options.ratio:g}.")
    if options.runs < 1:
        parser.error(f"--runs must be at least 1. Received: {options.runs}.")
    measured = []
    for name in NETWORKS:
        row = compare(name, options.ratio, options.runs, options.seed)
        latencies = ", ".join(f"{kind} {row[kind]['latency_ratio']:.2f} x the time" for kind in ("float", "int8"))
        note(f"{name}: {row['macs_ratio']:.2f} x the MACs, {latencies}")
        measured.append(row)
    settings = {"ratio": options.ratio, "runs": options.runs, "seed": options.seed, "num_threads": 1}
    return conclude(options.out, check(measured), settings, measured)


if __name__ == "__main__":
    sys.exit(main())
