"""Claim: between mask updates, `fit` with the hard FPGM callback takes at most 1.02 times the CPU time of plain `fit`.

    python benchmarks/masking_overhead.py

Three fits of the same ResNet-20 on CIFAR-size random images take turns in one process, a few batches at a time: one
with the callback and two without. Each fit runs in a thread of its own that waits while the others work, so these are
real, whole fits, and only their steady middle is timed: the first pieces, which hold tracing and the choice of
filters, are left out. CPU time of the process, as wall time depends on what else the machine does. The two plain fits
are the control (A/A): if they differ from each other by more than 2%, the machine is too noisy to tell.

The callback's cost is a fixed number of small operations per batch, whatever the batch holds: it weighs more the
smaller the batch. The claim is for the first batch size, 128, which the ResNet paper trains with; the others are
reported beside it.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
from _fits import Turn, in_turns, resnet20
from _shared import Claim, Spread, arguments, conclude, note, ratio_spread, spread

from tfprune.callbacks import FPGM

LIMIT = 1.02
FITS = ("plain", "masked", "plain_again")
NUM_LEFT_OUT = 2  # pieces at the start of each fit: tracing, allocation


def measure(pieces: int, batches: int, batch_size: int, seed: int) -> dict[str, list[float]]:
    """Run the three fits in turns; return the CPU seconds per batch of each piece of each."""
    rng = np.random.default_rng(seed)
    num_images = batch_size * batches * (pieces + NUM_LEFT_OUT)
    x = rng.normal(size=(num_images, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, num_images)

    def fit(name: str, turn: Turn) -> None:
        keras.utils.set_random_seed(seed)
        model = resnet20()
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        pruning = [FPGM(0.4)] if name == "masked" else []
        model.fit(x, y, batch_size, verbose=0, callbacks=[*pruning, turn.callback()])

    taken = in_turns({name: partial(fit, name) for name in FITS}, batches)
    return {name: [seconds / batches for seconds in times.cpu[NUM_LEFT_OUT:]] for name, times in taken.items()}


def summarize(seconds: dict[str, list[float]]) -> dict[str, Spread]:
    """Return the ratios masked over plain and plain over plain, of pieces of the same round, and CPU milliseconds."""
    plain = [(first + second) / 2 for first, second in zip(seconds["plain"], seconds["plain_again"], strict=True)]
    return {
        "overhead": ratio_spread(seconds["masked"], plain),
        "control": ratio_spread(seconds["plain_again"], seconds["plain"]),
        "plain_cpu_ms_per_batch": spread(np.multiply(plain, 1e3)),
        "added_cpu_ms_per_batch": spread(np.subtract(seconds["masked"], plain) * 1e3),
    }


def check(ratios: dict[str, Spread], batch_size: int) -> list[Claim]:
    """Return the claim and its control."""
    control = abs(ratios["control"].median - 1)
    text = f"CPU time with the hard FPGM callback over without, batch of {batch_size}, median"
    return [
        Claim(text, ratios["overhead"].median, LIMIT),
        Claim("control: difference of two plain fits (else too noisy to tell), median", control, LIMIT - 1),
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--repeats", type=int, default=3, help="fresh sets of three fits (default: 3)")
    parser.add_argument("--pieces", type=int, default=15, help="timed pieces of each fit (default: 15)")
    parser.add_argument("--images", type=int, default=384, help="images in a piece, in whole batches (default: 384)")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[128, 32], help="the claim is on the first (default: 128 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and images (default: 0)")
    options = parser.parse_args(command_line)
    if min(options.repeats, options.pieces, *options.batch_sizes) < 1 or options.images < max(options.batch_sizes):
        parser.error("--repeats, --pieces and --batch-sizes must be at least 1, and --images hold a batch.")
    measured = {size: _repeat(size, options) for size in options.batch_sizes}
    settings = {name: getattr(options, name) for name in ("repeats", "pieces", "images", "batch_sizes", "seed")}
    return conclude(options.out, check(measured[options.batch_sizes[0]], options.batch_sizes[0]), settings, measured)


def _repeat(batch_size: int, options: argparse.Namespace) -> dict[str, Spread]:
    pooled: dict[str, list[float]] = {name: [] for name in FITS}
    for repeat in range(options.repeats):
        batches = options.images // batch_size
        seconds = measure(options.pieces, batches, batch_size, options.seed + repeat)
        ratios = summarize(seconds)
        where = f"Batch of {batch_size}, fits {repeat + 1}/{options.repeats}"
        note(f"{where}: with callback {ratios['overhead']}, control {ratios['control']}")
        for name in FITS:
            pooled[name] += seconds[name]
    return summarize(pooled)


if __name__ == "__main__":
    sys.exit(main())
