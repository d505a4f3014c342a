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
import threading
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from _shared import Claim, Spread, arguments, conclude, note, ratio_spread, spread
from keras import layers

from tfprune.callbacks import FPGM

LIMIT = 1.02
FITS = ("plain", "masked", "plain_again")
NUM_LEFT_OUT = 2  # pieces at the start of each fit: tracing, allocation


def resnet20() -> keras.Model:
    """Return the CIFAR ResNet-20: three stages of three blocks, 16, 32 and 64 filters."""

    def conv(x: Any, filters: int, strides: int = 1, size: int = 3) -> Any:
        return layers.BatchNormalization()(layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x))

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(conv(inputs, 16))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            branch = conv(layers.ReLU()(conv(x, filters, strides)), filters)
            x = x if strides == 1 else conv(x, filters, strides, size=1)
            x = layers.ReLU()(layers.Add()([x, branch]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


class Turn(keras.callbacks.Callback):
    """Lets a fit work for some batches at a time, notes their CPU time, and hands over to the next fit."""

    def __init__(self, mine: threading.Semaphore, following: threading.Semaphore, num_batches: int) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._mine = mine
        self._following = following
        self._num_batches = num_batches
        self._start = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._start = time.process_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After the last batch of a piece, stop the clock, wait for the next turn, and start it again."""
        if (batch + 1) % self._num_batches == 0:
            self.seconds.append(time.process_time() - self._start)
            self._following.release()
            self._mine.acquire()
            self._start = time.process_time()


def measure(pieces: int, batches: int, batch_size: int, seed: int) -> dict[str, list[float]]:
    """Run the three fits in turns; return the CPU seconds per batch of each piece of each."""
    rng = np.random.default_rng(seed)
    num_images = batch_size * batches * (pieces + NUM_LEFT_OUT)
    x = rng.normal(size=(num_images, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, num_images)
    doors = [threading.Semaphore(0) for _ in FITS]
    turns = [Turn(doors[i], doors[(i + 1) % len(FITS)], batches) for i in range(len(FITS))]
    errors: list[BaseException] = []

    def work(index: int) -> None:
        doors[index].acquire()
        try:
            keras.utils.set_random_seed(seed)
            model = resnet20()
            model.compile(
                keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
            pruning = [FPGM(0.4)] if FITS[index] == "masked" else []
            model.fit(x, y, batch_size, verbose=0, callbacks=[*pruning, turns[index]])
        except BaseException as error:
            errors.append(error)
            for door in doors:
                door.release(num_images)  # nobody may wait for a fit that failed
        doors[(index + 1) % len(FITS)].release()  # the others must not wait for a fit that is over

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(FITS))]
    for thread in threads:
        thread.start()
    doors[0].release()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {
        name: [seconds / batches for seconds in turn.seconds[NUM_LEFT_OUT:]]
        for name, turn in zip(FITS, turns, strict=True)
    }


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
