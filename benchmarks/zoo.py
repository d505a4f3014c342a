"""Every network of keras.applications, half of its channels removed at random, equals its masked self.

Claim: for each of the 40 networks (random weights, randomised BatchNormalization statistics, small inputs), removing
50% of every free group at random gives a model whose outputs equal the masked model's to 1e-4 relative in float32, that
saves and loads without a trace of tfprune, trains one step, converts to TFLite and runs; and at least 90% of the
channels lie in free groups, or the table says what stands in the way.

    python benchmarks/zoo.py                  # all 40, about half an hour; finished networks are kept
    python benchmarks/zoo.py MobileNetV2 --again
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note

import tfprune
from tfprune.masking import apply_masks, channel_masks
from tfprune.runtime import TFLiteModel

NETWORKS = sorted(name for name, item in inspect.getmembers(keras.applications) if inspect.isfunction(item))
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
TOLERANCE = 1e-4


def build(name: str, seed: int = 0) -> keras.Model:
    """Return a network with random weights whose signal reaches the end, so that a difference would show."""
    keras.utils.set_random_seed(seed)
    size = SIZES.get(name, 64)
    network = getattr(keras.applications, name)
    model = network(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
    generator = np.random.default_rng(seed)
    has_norms = any(variable.name == "gamma" for variable in model.weights)
    for index, variable in enumerate(model.weights):
        if variable.name == "kernel" and not has_norms:  # Glorot's weights let the signal of a VGG die out
            # With one seed for all, layers of one shape are equal, and a file stores them once.
            variable.assign(keras.initializers.HeNormal(seed + index)(variable.shape))
        # Fresh statistics are all alike, and ConvNeXt scales its branches by 1e-6: neither would show a mistake.
        if variable.name in ("gamma", "moving_variance") or "layer_scale" in variable.path:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    return model


def mask_channels(
    model: keras.Model, ratio: float = 0.5, seed: int = 0
) -> dict[tfprune.graph.ChannelGroup, np.ndarray]:
    """Mask a share of the channels of every free group at random, and return those that stay."""
    generator = np.random.default_rng(seed)
    keep = {}
    for group in tfprune.channel_groups(model).free:
        gone = np.zeros(group.size, bool)
        gone[generator.choice(group.size, int(ratio * group.size), replace=False)] = True
        keep[group] = ~group.keep_one_each(gone)
    apply_masks(model, channel_masks(keep.items(), ("producer", "affine")))
    return keep


def check(name: str) -> dict[str, Any]:
    """Prune one network, try everything the claim says, and return the row of the table."""
    model = build(name)
    before, groups = tfprune.profile(model), tfprune.channel_groups(model)
    start = time.perf_counter()
    tfprune.channel_groups(model)
    analysis_seconds = time.perf_counter() - start
    mask_channels(model)
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 255, (8, *model.input_shape[1:])).astype("float32")
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, images)  # masked layers feed on other statistics; without this the signal dies
    start = time.perf_counter()
    small = tfprune.shrink(model)
    shrink_seconds = time.perf_counter() - start
    expected, found = model(images[:4], training=False).numpy(), small(images[:4], training=False).numpy()
    after = tfprune.profile(small)
    row = {
        "network": name,
        "input": model.input_shape[1],
        "groups": len(groups),
        "frozen": len(groups) - len(groups.free),
        "free_channels": _channels(groups.free) / _channels(groups.groups),
        "frozen_because": sorted({reason for group in groups for reason in group.frozen}),
        "parameters": [before.parameters, after.parameters],
        "macs": [before.macs, after.macs],
        "relative_error": float(np.abs(expected - found).max() / np.abs(expected).max()),
        "output_spread": float(expected.std(axis=0).mean() / np.abs(expected).max()),
        "analysis_seconds": analysis_seconds,
        "shrink_seconds": shrink_seconds,
    }
    with tempfile.TemporaryDirectory() as folder:
        row["saves"] = saves(small, Path(folder) / "small.keras", images[:4], found)
        row["converts"] = converts(small, Path(folder) / "small.tflite", images[:4])
    row["trains"] = trains(small, images[:4])
    return row


def saves(small: keras.Model, path: Path, images: np.ndarray, expected: np.ndarray) -> bool:
    """Save and load; the archive must not name tfprune, and the outputs must be the same."""
    small.save(path)
    named = "tfprune" in zipfile.ZipFile(path).read("config.json").decode()
    loaded = keras.models.load_model(path)
    return not named and bool(np.allclose(loaded(images, training=False).numpy(), expected, rtol=1e-5, atol=1e-6))


def converts(small: keras.Model, path: Path, images: np.ndarray) -> bool:
    """Export, which compares the file with the model, and run the file."""
    tfprune.export(small, path, calibration=images)
    return bool(np.isfinite(TFLiteModel(path).predict(images)).all())


def trains(small: keras.Model, images: np.ndarray) -> bool:
    """Train one step; every output must stay finite and some weight must move."""
    small.compile(keras.optimizers.SGD(1e-4), "mse")
    before = small.trainable_weights[0].numpy().copy()
    small.fit(images, np.zeros((len(images), 10)), epochs=1, verbose=0)
    return bool(np.isfinite(small(images).numpy()).all() and (small.trainable_weights[0].numpy() != before).any())


def _channels(groups: tuple[tfprune.graph.ChannelGroup, ...]) -> int:
    return sum(member.variable.shape[member.axis] for group in groups for member in group.producers)


def run_all(
    script: str,
    names: list[str],
    out: Path,
    again: bool,
    tell: Callable[[dict[str, Any]], str],
    check_rows: Callable[[dict[str, dict[str, Any]]], list[Claim]],
) -> dict[str, dict[str, Any]]:
    """Run `script NAME --one` for networks, each in a process that gives its memory back; keep what is done."""
    done = json.loads(out.read_text())["measured"] if out.exists() else {}
    for number, name in enumerate(names, 1):
        if name in done and not again:
            continue
        finished = subprocess.run([sys.executable, script, name, "--one"], capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise RuntimeError(f"{name} failed:\n{finished.stderr[-3000:]}")
        done[name] = json.loads(finished.stdout.strip().splitlines()[-1])
        note(f"{number}/{len(names)} {name}: {tell(done[name])}")
        conclude(out, check_rows(done), {"networks": NETWORKS}, done)
    return done


def claims(rows: dict[str, dict[str, Any]]) -> list[Claim]:
    """What must hold over all networks."""
    works = [row["saves"] and row["converts"] and row["trains"] for row in rows.values()]
    return [
        Claim("largest relative error", max(row["relative_error"] for row in rows.values()), TOLERANCE),
        Claim("networks that save, convert and train", sum(works), len(rows), at_least=True),
        Claim(
            "smallest spread of the outputs", min(row["output_spread"] for row in rows.values()), 1e-4, at_least=True
        ),
        Claim(
            "share of networks with 90% of their channels free",
            float(np.mean([row["free_channels"] >= 0.9 for row in rows.values()])),
            35 / 40,
            at_least=True,
        ),
        Claim("networks checked", len(rows), len(NETWORKS), at_least=True),
    ]


def told(row: dict[str, Any]) -> str:
    """Return a finished row in a few words."""
    return f"error {row['relative_error']:.2g}, free {row['free_channels']:.1%}"


def main() -> int:
    """Read the command line and run."""
    return run_networks(__doc__, __file__, check, told, claims)


def run_networks(
    doc: str | None,
    script: str,
    check_one: Callable[[str], dict[str, Any]],
    tell: Callable[[dict[str, Any]], str],
    check_rows: Callable[[dict[str, dict[str, Any]]], list[Claim]],
) -> int:
    """Read the command line of a benchmark over networks, run it, and return the exit status."""
    parser: argparse.ArgumentParser = arguments(doc, script)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names from keras.applications (default: all)")
    parser.add_argument("--again", action="store_true", help="check networks again that the JSON already holds")
    parser.add_argument("--one", action="store_true", help="check one network and print its row")
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(NETWORKS))
    if unknown:
        parser.error(f"not in keras.applications: {', '.join(unknown)}")
    if options.one:
        print(json.dumps(check_one(options.networks[0])))
        return 0
    rows = run_all(script, options.networks, options.out, options.again, tell, check_rows)
    return conclude(options.out, check_rows(rows), {"networks": NETWORKS}, rows)


if __name__ == "__main__":
    sys.exit(main())
