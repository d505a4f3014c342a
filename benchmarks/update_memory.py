"""Claim: an update of the masks of `MagnitudePruning` takes at most 1.5 times the memory of the weights, at its peak.

    python benchmarks/update_memory.py

A dense network of 150 million weights is trained for two steps; the second update is measured, so that everything that
is there for the whole of a `fit` is there already. A thread reads the resident memory of the process while the update
runs; its peak above the level before, over the bytes of all weights, is the number. Each distribution runs in a
process of its own. The control makes one copy of all weights instead of an update: it must come out as 1.0.

One kernel has half of all weights (in VGG-16 one has three quarters): an update needs a second copy of the largest.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, in_a_process, note

from tfprune.callbacks import MagnitudePruning
from tfprune.distributions import global_, uniform
from tfprune.schedules import Polynomial

LIMIT = 1.5
TOLERANCE = 0.1
DISTRIBUTIONS = {"uniform": uniform, "global": global_}
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 8)


def resident() -> int:
    """Return the bytes that this process has in memory."""
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in fields if line.startswith("VmRSS"))


class Peak:
    """Measures the largest growth of the resident memory while a function runs, and the CPU seconds it takes."""

    def __init__(self, function: Callable[[], Any]) -> None:
        """Call the function, and measure."""
        before = self._peak = resident()
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done,))
        watcher.start()
        start = time.process_time()
        try:
            self.result = function()
        finally:
            self.seconds = time.process_time() - start
            done.set()
            watcher.join()
        self.growth = self._peak - before

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(0.002):
            self._peak = max(self._peak, resident())


def network(num_weights: int) -> keras.Model:
    """Return dense layers with one input each and so many weights in all; the first has half of them."""
    inputs = keras.Input((1,))
    width = 64
    outputs = []
    for index, share in enumerate(SHARES):
        repeated = keras.layers.RepeatVector(width)(inputs)
        flat = keras.layers.Flatten()(repeated)
        units = round(num_weights * share / width)
        layer = keras.layers.Dense(units, use_bias=False, name=f"kernel_{index}")
        outputs.append(keras.ops.mean(layer(flat), axis=-1, keepdims=True))
    return keras.Model(inputs, keras.layers.Add()(outputs))


def measure(name: str, num_weights: int, seed: int) -> dict[str, float]:
    """Return peaks over the bytes of all weights, of an update and of one copy, and the CPU seconds of the update."""
    keras.utils.set_random_seed(seed)
    model = network(num_weights)
    model.compile(keras.optimizers.SGD(0.01), "mse", jit_compile=False)
    peaks: list[Peak] = []

    class Measured(MagnitudePruning):
        def _update(self, *args: Any) -> None:
            peaks.append(Peak(lambda: super(Measured, self)._update(*args)))

    schedule = Polynomial(0.9, initial=0.5, power=1, end=2, frequency=1)
    callback = Measured(schedule, distribution=DISTRIBUTIONS[name])
    model.fit(np.ones((2, 1)), np.ones((2, 1)), batch_size=1, verbose=0, callbacks=[callback])
    weights = sum(int(np.prod(weight.shape)) for weight in model.weights) * 4
    copy = Peak(lambda: [weight.numpy() for weight in model.weights])
    return {
        "peak_over_weights": peaks[-1].growth / weights,
        "copy_over_weights": copy.growth / weights,
        "update_cpu_seconds": peaks[-1].seconds,
        "weights": weights // 4,
    }


def check(measured: dict[str, dict[str, float]]) -> list[Claim]:
    """Return the claims and their controls."""
    claims = []
    for name, row in measured.items():
        claims.append(Claim(f"peak of an update over the weights, {name}", row["peak_over_weights"], LIMIT))
        claims.append(
            Claim(
                f"control, {name}: how far one copy of the weights is from 1",
                abs(row["copy_over_weights"] - 1),
                TOLERANCE,
            )
        )
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument(
        "--weights", type=int, default=150_000_000, help="weights of the network (default: 150 million)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    parser.add_argument("--one", choices=DISTRIBUTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args(command_line)
    if options.one:
        print(json.dumps(measure(options.one, options.weights, options.seed)))
        return 0
    measured = {}
    for name in DISTRIBUTIONS:
        measured[name] = in_a_process(__file__, name, options, of_memory=True)
        note(f"{name}: {measured[name]}")
    return conclude(options.out, check(measured), {"weights": options.weights, "seed": options.seed}, measured)


if __name__ == "__main__":
    sys.exit(main())
