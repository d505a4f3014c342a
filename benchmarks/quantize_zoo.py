"""Every network of keras.applications as an int8 file: by calibration, and after a step of quantization-aware training.

Claims: for each of the 40 networks (random weights, randomised BatchNormalization statistics, small inputs), int8
export by calibration gives a file that runs and passes the check of `export`; and `quantize_aware`, one training step
and `export` give a file that does so as well, in which every operator is integer, but for those that the table names
with the reason.

    python benchmarks/quantize_zoo.py                  # all 40, about an hour; finished networks are kept
    python benchmarks/quantize_zoo.py MobileNetV2 --again

Random weights carry a difference in rounding on over a hundred layers, where trained ones forget it
(benchmarks/mlperf_tiny_int8.py has these): a file may be off by half of the spread of the outputs. One that computed
something else would be off by 1.4 times the spread.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim
from zoo import NETWORKS, build, run_networks

import tfprune

TOLERANCE = 0.5


def check(name: str) -> dict[str, Any]:
    """Export one network in both ways, and return the row of the table."""
    model = build(name)
    calm(model)
    images = pictures(8, model.input_shape[1])
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, images)
    row: dict[str, Any] = {"network": name, "input": model.input_shape[1], "parameters": model.count_params()}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        row["calibrated"] = exported(model, Path(folder) / "calibrated.tflite", images)
        row["calibrated"]["seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        aware = tfprune.quantize_aware(model, batch_normalization="freeze")
        row["aware_seconds"] = time.perf_counter() - start
        aware.compile(keras.optimizers.SGD(1e-5), "mse")
        start = time.perf_counter()
        aware.fit(images, np.zeros((len(images), 10)), batch_size=len(images), verbose=0)
        row["step_seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        row["aware"] = exported(aware, Path(folder) / "aware.tflite", images)
        row["aware"]["seconds"] = time.perf_counter() - start
    return row


def calm(model: keras.Model) -> None:
    """Shift what BatchNormalization hands on by one standard deviation, so that ReLUs let most of it through.

    With random weights and half of all numbers cut off, normalized layers amplify every difference until nothing but
    rounding is left (MobileNetV2: 1.08 times the spread of the outputs; with this 0.11). Trained networks do not.
    """
    for variable in model.weights:
        if variable.name == "beta":
            variable.assign(variable + 1)


def pictures(count: int, size: int, seed: int = 1) -> np.ndarray:
    """Return images (count, size, size, 3) from 0 to 255 that differ: blots of random colour, brightness and contrast.

    To a deep network with random weights all images of pure noise are one and the same, and its outputs differ by less
    than the rounding of any int8 file.
    """
    generator = np.random.default_rng(seed)
    images = np.empty((count, size, size, 3), "float32")
    for image in images:
        low, high = np.sort(generator.uniform(0, 255, 2))
        coarse = generator.uniform(low, high, (generator.integers(2, 9), generator.integers(2, 9), 3))
        image[:] = keras.ops.image.resize(coarse, (size, size), "bilinear")
    return np.clip(images + generator.normal(0, 8, images.shape), 0, 255).astype("float32")


def exported(model: keras.Model, path: Path, images: np.ndarray) -> dict[str, Any]:
    """Export, which runs the file and compares it with the model, and return what the report says."""
    options = tfprune.ExportOptions(tolerance=TOLERANCE)
    report = tfprune.export(model, path, quantize="int8", calibration=images, options=options)
    (output,) = report.outputs
    return {
        "file_bytes": report.file_bytes,
        "left_in_float": {each.name: each.reason for each in report.float_operators},
        "max_error_lsb": output.max_error_lsb,
        "relative_rms_error": output.relative_rms_error,
        "top1_agreement": output.top1_agreement,
    }


def claims(rows: dict[str, dict[str, Any]]) -> list[Claim]:
    """What must hold over all networks."""
    integer = [not row["aware"]["left_in_float"] for row in rows.values()]
    return [
        Claim("networks checked", len(rows), len(NETWORKS), at_least=True),
        Claim(
            "largest relative error by calibration",
            max(r["calibrated"]["relative_rms_error"] for r in rows.values()),
            TOLERANCE,
        ),
        Claim(
            "largest relative error of aware training",
            max(r["aware"]["relative_rms_error"] for r in rows.values()),
            TOLERANCE,
        ),
        Claim("networks all integer after aware training", sum(integer), len(rows) - 5, at_least=True),
    ]


def told(row: dict[str, Any]) -> str:
    """Return a finished row in a few words."""
    left = ", ".join(row["aware"]["left_in_float"]) or "none"
    return f"left in float {left}; largest difference {row['aware']['max_error_lsb']:.0f} steps"


if __name__ == "__main__":
    sys.exit(run_networks(__doc__, __file__, check, told, claims))
