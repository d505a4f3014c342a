"""Channels and blocks removed by sparsity regularization, filter pruning or at once, against small nets from scratch.

    apt-get install dataset-fashion-mnist      # or Keras downloads the images
    pip install matplotlib
    python benchmarks/regularization.py        # about 40 minutes of CPU time, estimated; goes on where it was stopped

Fashion-MNIST, the first 10,000 training images, and accuracy on the 10,000 test images after the last epoch. A VGG of
five convolutions and a ResNet of nine blocks, both with BatchNormalization, at 50% and 30% of their MACs, 3 seeds.

All methods get the same nine epochs, the same learning rates (SGD, one cosine over the nine), and by seed the same
first weights and, in each epoch, the same order of images. The last third fine-tunes the shrunken network. Before:

- L1 one-shot: six epochs dense, then `prune_channels` by L1 norm, the same ratio of every group.
- SFP: six epochs with the callback. FPGM: three dense, then three with the callback, since a hard choice on an
  untrained network would be random. Their ratio is the smallest that meets the target, so that they end with the
  widths of L1 one-shot.
- GroupLasso: six epochs, then `prune_channels` by L2 norm, all channels ranked together, each relative to its group.
- GroupNormRegularization and GrowingRegularization: three epochs dense, then three with the callback, then
  `prune_channels` by L2 norm, the same ratio of every group, as they compare channels within groups.
- NetworkSlimming and MorphNet: six epochs, then the channels of the smallest gammas go, all ranked together, as few as
  the target asks for; of layers that share channels the mean of the gammas counts, and for MorphNet the largest.
- SparseStructureSelection (ResNet only): six epochs with a factor for every block; then the blocks of the smallest
  factors go, until the target is met.

The small net from scratch is that of L1 one-shot, with new weights: Scratch-E trains it for nine epochs, Scratch-B for
as many more as make up for the MACs that it lacks, as Liu et al. do (Rethinking the Value of Network Pruning, 2019).

The learning rate and the strengths are chosen by `--sweep`, which trains with another seed and evaluates on 5,000
images of the training set that nothing else uses. `--full` is the same with 60,000 images, 30 epochs and twice the
width.

Latency is that of the float `.tflite` over the dense one's, of the first seed, in turns, one thread.

Claims: the dense network is a fair one; every network is within its budget of MACs and faster than the dense one.
How the methods compare is measured, not promised: the table has their accuracies, the JSON their differences by seed.
"""

import hashlib
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from _regularization import METHODS, ONLY_RESIDUAL, run
from _shared import Claim, arguments, conclude, console, note
from _trainings import NETWORKS, Images, Job, Settings
from dynamic_sparse import fashion_mnist, stored, write
from tables import regularization

import tfprune

PLOT = Path(__file__).parents[1] / "docs" / "regularization.svg"
LEFT = (0.5, 0.3)
DEFAULTS: Settings = {
    "epochs": 9,
    "batch": 128,
    "learning_rate": 0.1,
    "steps_per_execution": 6,
    "train": 10000,
    "networks": {"VGG": {"width": 24}, "residual": {"width": 8, "blocks": 3}},
    "latency_runs": 200,
}
FULL: Settings = {
    **DEFAULTS,
    "epochs": 30,
    "train": 60000,
    "networks": {"VGG": {"width": 48}, "residual": {"width": 16, "blocks": 3}},
}
QUICK: Settings = {
    "epochs": 3,
    "batch": 32,
    "learning_rate": 0.1,
    "steps_per_execution": 2,
    "train": 64,
    "networks": {"VGG": {"width": 4}, "residual": {"width": 4, "blocks": 1}},
    "latency_runs": 5,
}
VALIDATION, SWEEP_SEED = 5000, 100

# Learning rate: of 0.05, 0.1, 0.2 and 0.4 the dense networks were best at 0.1 (VGG 89.9%, residual 88.3%).
# Strengths: best mean of both targets in `--sweep` (results/regularization_sweep.json); none at an end of its list.
STRENGTHS: dict[str, dict[str, float]] = {
    "VGG": {"GroupLasso": 3e-4, "GroupNorm": 3e-3, "Growing": 1e-3, "NetworkSlimming": 1e-2, "MorphNet": 0.3},
    "residual": {
        "GroupLasso": 3e-4,
        "GroupNorm": 3e-3,
        "Growing": 1e-3,
        "NetworkSlimming": 1e-2,
        "MorphNet": 1.0,
        "SSS": 3e-2,
    },
}
SWEEP = {
    "GroupLasso": (1e-4, 3e-4, 1e-3),
    "GroupNorm": (1e-3, 3e-3, 1e-2),
    "Growing": (3e-4, 1e-3, 3e-3, 1e-2),
    "NetworkSlimming": (1e-3, 3e-3, 1e-2, 3e-2),
    "MorphNet": (0.1, 0.3, 1.0, 3.0),
    "SSS": (3e-3, 1e-2, 3e-2, 1e-1),
}
LATENCY = ("latency_ratio", "latency_ratio_quartiles")
Run = dict[str, Any]


def plan(
    networks: Sequence[str], methods: Sequence[str], left: Sequence[float], seeds: Sequence[int], sweep: bool = False
) -> list[Job]:
    """Return all runs, in an order in which the second of two that begin alike finds what the first one kept."""
    jobs = []
    for method, target, seed, network in itertools.product(methods, left, seeds, networks):
        if method in ONLY_RESIDUAL and network != "residual":
            continue
        if method == "dense":
            target = 1.0
        strengths = SWEEP.get(method, ()) if sweep else ()
        for strength in strengths or (STRENGTHS[network].get(method, 0.0),):
            jobs.append(Job(network, method, target, seed, strength))
    return list(dict.fromkeys(jobs))


def job_of(row: Run) -> Job:
    """Return which run a stored one is."""
    return Job(*(row[name] for name in Job.__dataclass_fields__))


def images(train: int, validation: bool) -> Images:
    """Return the first training images, and to evaluate with those of the test set or the last training images."""
    x_train, y_train, x_test, y_test = fashion_mnist(60000)
    if validation:
        x_train, x_test = np.split(x_train, [-VALIDATION])
        y_train, y_test = np.split(y_train, [-VALIDATION])
    return x_train[:train].reshape(-1, 28, 28, 1), y_train[:train], x_test.reshape(-1, 28, 28, 1), y_test


def measure(
    jobs: Sequence[Job], runs: list[Run], settings: Settings, data: Images, processes: int, store: Path
) -> None:
    """Make runs, and store each one at once."""
    start = time.perf_counter()
    for count, row in enumerate(_made(jobs, settings, data, processes), 1):
        runs.append(row)
        write(store, {"settings": settings, "runs": runs})
        left = (time.perf_counter() - start) / count * (len(jobs) - count) / 60
        what = f"{row['network']} {row['method']}, {row['macs_left']:.0%} of the MACs, seed {row['seed']}"
        strength = f", strength {row['strength']:g}" if row["strength"] else ""
        note(f"{count}/{len(jobs)} {what}{strength}: {row['accuracy']:.2%}; {left:.0f} min left")


def _made(jobs: Sequence[Job], settings: Settings, data: Images, processes: int) -> Iterator[Run]:
    rest = (settings, data, Path(tempfile.gettempdir()) / "tfprune-regularization" / _fingerprint(settings, data))
    if processes == 1:
        yield from (run(job, *rest) for job in jobs)
        return
    # Networks this small gain nothing from a second thread.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _one_thread)
    try:
        for future in as_completed([pool.submit(run, job, *rest) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _fingerprint(settings: Settings, data: Images) -> str:
    """Tell trainings apart that begin otherwise: with other settings, images or code."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in data:
        found.update(array.tobytes())
    for path in [*sorted(Path(tfprune.__file__).parent.rglob("*.py")), Path(__file__).with_name("_regularization.py")]:
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _one_thread() -> None:
    tf.get_logger().setLevel("ERROR")  # every fit has a graph of its own
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def summarize(runs: Sequence[Run]) -> dict[str, Any]:
    """Return means and sample standard deviations in percent, and differences paired by seed in points."""
    table: dict[tuple[str, str, float, float], dict[int, Run]] = {}
    for row in runs:
        table.setdefault((row["network"], row["method"], row["left"], row["strength"]), {})[row["seed"]] = row
    accuracy, differences = [], []
    for (network, method, left, strength), by_seed in table.items():
        rows = list(by_seed.values())
        name = {"network": network, "method": method, "left": left, "strength": strength, "seeds": len(rows)}
        pruned = [row["pruned_accuracy"] for row in rows if row["pruned_accuracy"] is not None]
        sizes = {
            "pruned_mean": 100 * np.mean(pruned) if pruned else None,
            "macs_left": np.mean([row["macs_left"] for row in rows]),
            "macs_left_largest": max(row["macs_left"] for row in rows),
            "parameters": np.mean([row["parameters"] for row in rows]),
        }
        latency = next(({key: row[key] for key in LATENCY} for row in rows if LATENCY[1] in row), {})
        accuracy.append({**name, **_spread([row["accuracy"] for row in rows]), **sizes, **latency})
        for over in ("dense", "Scratch-E", "Scratch-B", "L1 one-shot"):
            others = table.get((network, over, 1.0 if over == "dense" else left, 0.0), {})
            if over != method and by_seed.keys() <= others.keys():
                gaps = [row["accuracy"] - others[seed]["accuracy"] for seed, row in by_seed.items()]
                differences.append({**name, "over": over, **_spread(gaps)})
    return {"accuracy": accuracy, "differences": differences}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    deviation = 100 * float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": 100 * float(np.mean(values)), "sd": deviation}


def check(summary: dict[str, Any]) -> list[Claim]:
    """Return the claims."""
    claims = []
    small: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in summary["accuracy"]:
        if row["method"] == "dense":
            text = f"{row['network']}: test accuracy of the dense network, mean, percent"
            claims.append(Claim(text, row["mean"], 87.0, at_least=True))
        else:
            small.setdefault((row["network"], row["left"]), []).append(row)
    for (network, left), rows in small.items():
        name = f"{network} at {left:.0%}"
        claims.append(Claim(f"{name}: largest share of the MACs", max(r["macs_left_largest"] for r in rows), left))
        claims.append(Claim(f"{name}: slowest over dense, latency", max(r["latency_ratio"] for r in rows), 1.0))
    return claims


def draw(summary: dict[str, Any], path: Path) -> None:
    """Plot accuracy against MACs left: means, and one sample standard deviation up and down."""
    matplotlib.rcParams.update({"svg.hashsalt": "tfprune", "svg.fonttype": "none", "font.family": "sans-serif"})
    networks = list(dict.fromkeys(row["network"] for row in summary["accuracy"]))
    figure, panels = plt.subplots(1, len(networks), figsize=(9, 4.2), sharey=True, squeeze=False)
    for axes, network in zip(panels[0], networks, strict=True):
        rows = [row for row in summary["accuracy"] if row["network"] == network]
        for number, method in enumerate(METHODS):
            found = sorted((row["macs_left"], row["mean"], row["sd"] or 0.0) for row in rows if row["method"] == method)
            if found and method == "dense":
                _, mean, sd = found[0]
                axes.axhspan(mean - sd, mean + sd, color="0.9")
                axes.axhline(mean, color="0.4", linestyle="--", label=method)
            elif found:
                places, means, deviations = (np.array(values) for values in zip(*found, strict=True))
                style: dict[str, Any] = {
                    "color": f"C{number % 10}",
                    "linestyle": ":" if method.startswith("Scratch") else "-",
                }
                shift = 0.4 * (number - len(METHODS) / 2)
                axes.errorbar(
                    100 * places + shift, means, deviations, marker="o", ms=3, capsize=2, label=method, **style
                )
        axes.set(xlabel="MACs left, %", title=network)
    panels[0][0].set_ylabel("test accuracy, %")
    figure.legend(*panels[0][-1].get_legend_handles_labels(), loc="center right", fontsize="small")
    figure.tight_layout(rect=(0, 0, 0.83, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the JSON and the plot, print the table, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default: 3)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: both")
    parser.add_argument("--learning-rate", type=float, help=f"default: {DEFAULTS['learning_rate']}")
    parser.add_argument("--processes", type=int, default=2, help="runs at the same time (default: 2)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="where the figure goes (default: docs/)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="all images, more epochs, wider networks: many hours")
    size.add_argument("--quick", action="store_true", help="tiny, at one target, to try the script")
    size.add_argument("--sweep", action="store_true", help="try strengths on validation images; give another --out")
    options = parser.parse_args(command_line)
    settings = dict(QUICK if options.quick else FULL if options.full else DEFAULTS)
    settings["learning_rate"] = options.learning_rate or settings["learning_rate"]
    seeds = [SWEEP_SEED] if options.sweep else list(range(options.seeds))
    jobs = plan(options.networks, options.methods, LEFT[:1] if options.quick else LEFT, seeds, options.sweep)
    store = options.out.with_suffix(".partial.json")
    earlier = stored(options.out, store, settings)
    runs = [row for row in earlier if job_of(row) in set(jobs)]
    missing = [job for job in jobs if job not in set(map(job_of, runs))]
    note(f"{len(runs)} of {len(jobs)} runs are stored.")
    if missing:
        measure(missing, runs, settings, images(settings["train"], options.sweep), options.processes, store)
    runs.sort(key=lambda row: jobs.index(job_of(row)))
    measured = {**summarize(runs), "runs": runs}
    console.print(regularization(measured))
    if options.sweep:
        return conclude(options.out, [], settings, measured)
    draw(measured, options.plot)
    status = conclude(options.out, check(measured), {**settings, "seeds": options.seeds}, measured)
    store.unlink(missing_ok=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
