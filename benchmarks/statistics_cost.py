"""Claims: statistics for Taylor over 1,000 samples take at most 1.3 times the CPU time of a training epoch over them;
a pass takes at most 3 times the memory of the weights beside a batch.

    python benchmarks/statistics_cost.py

Time: two networks are trained for two epochs over 1,000 samples in batches of 64, and gradients of gates are gathered
over the same, each in a process of its own. Compared are the first epoch and the pass, which both compile their step;
and the second epoch and what 936 samples more cost a pass, in which nothing is compiled.

Memory: gradients of all weights of a dense network are gathered with batches of one, as in `update_memory.py`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, in_a_process, note
from update_memory import Peak, network

from tfprune.statistics import gather

TIME_LIMIT, MEMORY_LIMIT = 1.3, 3.0
SAMPLES, BATCH = 1000, 64
layers = keras.layers


def residual() -> keras.Model:
    """Return a residual network of 20 layers for small images."""
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters in (8, 16, 32):
        for block in range(3):
            strides = 2 if filters > 8 and not block else 1
            y = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
            y = layers.ReLU()(layers.BatchNormalization()(y))
            y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
            if strides > 1:
                x = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x))
            x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def mobile() -> keras.Model:
    """Return a MobileNetV2 of width 0.35 for images of 96 pixels."""
    return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)


NETWORKS: dict[str, Callable[[], keras.Model]] = {"residual": residual, "mobile": mobile}


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Return the CPU seconds that a function takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure_time(name: str, seed: int) -> dict[str, float]:
    """Return CPU seconds of a first and a second epoch, of a pass, and of one over a single batch."""
    keras.utils.set_random_seed(seed)
    model = NETWORKS[name]()
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    random = np.random.default_rng(seed)
    data = random.normal(size=(SAMPLES, *model.input_shape[1:])).astype("float32"), random.integers(0, 10, SAMPLES)

    def train() -> None:
        model.fit(*data, batch_size=BATCH, verbose=0)

    def look(max_samples: int) -> None:
        gather(model, data, ["gate_gradient"], loss="compiled", batch_size=BATCH, max_samples=max_samples)

    return {
        "first_epoch": cpu_seconds(train),
        "epoch": cpu_seconds(train),
        "pass": cpu_seconds(lambda: look(SAMPLES)),
        "pass_over_one_batch": cpu_seconds(lambda: look(BATCH)),
    }


def measure_memory(num_weights: int, seed: int) -> dict[str, float]:
    """Return the peak of a pass over the bytes of all weights, and that of one copy of them."""
    keras.utils.set_random_seed(seed)
    model = network(num_weights)
    weights = sum(int(np.prod(weight.shape)) for weight in model.weights) * 4
    ones = np.ones((2, 1), "float32")
    peak = Peak(lambda: gather(model, ones, ["gradient"], batch_size=1))
    copy = Peak(lambda: [weight.numpy() for weight in model.weights])
    return {"peak_over_weights": peak.growth / weights, "copy_over_weights": copy.growth / weights}


def check(measured: dict[str, dict[str, float]]) -> list[Claim]:
    """Return the claims, and the control of memory."""
    claims = []
    for name in NETWORKS:
        row = measured[name]
        more = (row["pass"] - row["pass_over_one_batch"]) / (1 - BATCH / SAMPLES)
        claims.append(Claim(f"a pass over a first epoch, {name}", row["pass"] / row["first_epoch"], TIME_LIMIT))
        claims.append(Claim(f"samples of a pass over an epoch, {name}", more / row["epoch"], TIME_LIMIT))
    memory = measured["memory"]
    claims.append(Claim("peak of a pass over the weights", memory["peak_over_weights"], MEMORY_LIMIT))
    claims.append(
        Claim("control: how far one copy of the weights is from 1", abs(memory["copy_over_weights"] - 1), 0.1)
    )
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--weights", type=int, default=50_000_000, help="weights of the network (default: 50 million)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data (default: 0)")
    parser.add_argument("--one", choices=[*NETWORKS, "memory"], help=argparse.SUPPRESS)
    options = parser.parse_args(command_line)
    if options.one:
        is_memory = options.one == "memory"
        row = measure_memory(options.weights, options.seed) if is_memory else measure_time(options.one, options.seed)
        print(json.dumps(row))
        return 0
    measured = {}
    for name in (*NETWORKS, "memory"):
        measured[name] = in_a_process(__file__, name, options, of_memory=name == "memory")
        note(f"{name}: {measured[name]}")
    settings = {"weights": options.weights, "seed": options.seed, "samples": SAMPLES, "batch": BATCH}
    return conclude(options.out, check(measured), settings, measured)


if __name__ == "__main__":
    sys.exit(main())
