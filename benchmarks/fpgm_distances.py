"""Claim: the geometric-median score of 512 filters of 4,608 weights is at least 5 times as fast as scipy's cdist.

    python benchmarks/fpgm_distances.py

Compares `tfprune.criteria.geometric_median_distance` with `scipy.spatial.distance.cdist(w, w).sum(1)`, the plain
way to write it, on kernels of ResNets. cdist gets its fairest form: float64 rows, contiguous, prepared outside
the timing; ours starts from the float32 kernel. Both get one thread: cdist has no more, and the threads of a matrix
product wait for each other when the machine is busy. Calls alternate; the claim is on CPU time, and wall time is
reported beside it. The scores must agree to a relative 1e-9.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy loads
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from _shared import Claim, arguments, conclude, note, ratio_spread, spread, take_turns
from scipy.spatial.distance import cdist

from tfprune.criteria import geometric_median_distance

# height, width, input channels, filters: the stages of ResNet-18, the last one first, and two 1x1 of ResNet-50
SHAPES = ((3, 3, 512, 512), (3, 3, 256, 256), (3, 3, 128, 128), (3, 3, 64, 64), (1, 1, 256, 64), (1, 1, 512, 2048))


def compare(shape: tuple[int, ...], rounds: int, seed: int) -> dict[str, Any]:
    """Time both on one kernel, and compare their scores."""
    kernel = np.random.default_rng(seed).normal(0.0, 0.05, shape).astype("float32")
    rows = np.ascontiguousarray(kernel.reshape(-1, shape[-1]).T.astype(np.float64))
    functions = {"tfprune": lambda: geometric_median_distance(kernel), "cdist": lambda: cdist(rows, rows).sum(1)}
    cpu = take_turns(functions, rounds, clock=time.process_time)
    wall = take_turns(functions, rounds)
    expected = functions["cdist"]()
    return {
        "filters": shape[-1],
        "weights_per_filter": rows.shape[1],
        "speedup_cpu": ratio_spread(cpu["cdist"], cpu["tfprune"]),
        "speedup_wall": ratio_spread(wall["cdist"], wall["tfprune"]),
        "tfprune_wall_ms": spread(np.multiply(wall["tfprune"], 1e3)),
        "cdist_wall_ms": spread(np.multiply(wall["cdist"], 1e3)),
        "max_relative_difference": float(np.max(np.abs(functions["tfprune"]() - expected) / expected)),
    }


def check(measured: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the claims; the first shape is the one with the promise on speed."""
    difference = max(row["max_relative_difference"] for row in measured)
    first = f"{measured[0]['filters']} filters of {measured[0]['weights_per_filter']} weights"
    return [
        Claim(f"times as fast as cdist on {first}, CPU time", measured[0]["speedup_cpu"].median, 5.0, at_least=True),
        Claim("largest relative difference of the scores, all shapes", difference, 1e-9),
    ]


def main(command_line: Sequence[str] | None = None, shapes: Sequence[tuple[int, ...]] = SHAPES) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=15, help="timed calls of each function (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random kernels (default: 0)")
    options = parser.parse_args(command_line)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1. Received: {options.rounds}.")
    measured = []
    for shape in shapes:
        row = compare(shape, options.rounds, options.seed)
        note(f"{shape}: {row['speedup_cpu']} x faster by CPU time, {row['speedup_wall']} x by wall time")
        measured.append(row)
    return conclude(
        options.out, check(measured), {"rounds": options.rounds, "seed": options.seed, "threads": 1}, measured
    )


if __name__ == "__main__":
    sys.exit(main())
