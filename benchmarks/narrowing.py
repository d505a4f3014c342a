"""Claim: where half of the MACs go in the first third, training in ever smaller models takes 0.75 of the CPU time.

    python benchmarks/narrowing.py

A convolutional network on CIFAR-size random images is trained with `FilterPruning` in hard mode, which zeroes 30% of
the filters of every layer after a sixth of the epochs: half of the MACs. Whole trainings take turns: `fit`,
`fit_narrowing` and `fit` again. Tracing, the choice of filters, the analysis after each epoch, the removal and the
second tracing are all in the time. The two plain ones are the control (A/A): if they differ by more than 5%, the
machine is too noisy to tell. CPU time of the process, as wall time depends on what else the machine does.

What smaller models save has to pay for tracing once more, so short trainings gain nothing.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from _shared import Claim, arguments, conclude, note, ratio_spread, spread, take_turns

import tfprune
from tfprune.callbacks import FilterPruning
from tfprune.schedules import Function

LIMIT, NOISE, MACS_LIMIT = 0.75, 0.05, 0.5
SHARE = 0.3
L = keras.layers


def network(seed: int) -> keras.Model:
    """Return four convolutions with BatchNormalization, and a classifier; compiled."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters, strides in ((40, 1), (80, 2), (80, 1), (160, 2)):
        model.add(L.Conv2D(filters, 3, strides, padding="same", use_bias=False))
        model.add(L.BatchNormalization())
        model.add(L.ReLU())
    model.add(L.GlobalAveragePooling2D())
    model.add(L.Dense(10))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return model


def pruning(epochs: int) -> FilterPruning:
    """Return the callback: nothing goes before a sixth of the epochs is done."""
    schedule = Function(lambda done: SHARE if 6 * done >= epochs else 0.0, unit="epochs", frequency=1)
    return FilterPruning(schedule, mode="hard")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train in turns; return the CPU seconds of each training, and the MACs of the models."""
    random = np.random.default_rng(options.seed)
    x = random.normal(size=(options.images, 32, 32, 3)).astype("float32")
    y = random.integers(0, 10, options.images)
    given = {"batch_size": options.batch_size, "shuffle": False, "verbose": 0}
    found: dict[str, keras.Model] = {}

    def fit() -> None:
        found["fit"] = network(options.seed)
        found["fit"].fit(x, y, epochs=options.epochs, callbacks=[pruning(options.epochs)], **given)

    def narrowing() -> None:
        model = network(options.seed)
        callbacks = [pruning(options.epochs)]
        found["narrowing"] = tfprune.fit_narrowing(model, (x, y), options.epochs, callbacks=callbacks, **given)

    functions = {"fit": fit, "narrowing": narrowing, "fit_again": fit}
    seconds = take_turns(functions, options.rounds, time.process_time, warmup=0)
    return {
        "cpu_seconds": seconds,
        "macs": {name: tfprune.profile(model).macs for name, model in found.items()},
    }


def summarize(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return ratios of trainings of the same round, and the MACs that are left."""
    seconds = measured["cpu_seconds"]
    plain = np.mean([seconds["fit"], seconds["fit_again"]], axis=0).tolist()
    return {
        "cpu": ratio_spread(seconds["narrowing"], plain),
        "control": ratio_spread(seconds["fit_again"], seconds["fit"]),
        "macs": measured["macs"]["narrowing"] / measured["macs"]["fit"],
        "fit_cpu_seconds": spread(plain),
    }


def check(summary: Mapping[str, Any]) -> list[Claim]:
    """Return the claim, what it presumes, and its control."""
    return [
        Claim("CPU time of the whole training in smaller models over without, median", summary["cpu"].median, LIMIT),
        Claim("MACs that are left after a sixth of the training, over the dense model's", summary["macs"], MACS_LIMIT),
        Claim(
            "control: difference of two plain trainings (else too noisy to tell), median",
            abs(summary["control"].median - 1),
            NOISE,
        ),
    ]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each kind (default: 2)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each, at least 3 (default: 6)")
    parser.add_argument("--images", type=int, default=1280, help="random images (default: 1280)")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and images (default: 0)")
    options = parser.parse_args(command_line)
    if options.epochs < 3 or min(options.rounds, options.images, options.batch_size) < 1:
        parser.error("--epochs must be at least 3, --rounds, --images and --batch-size at least 1.")
    summary = summarize(measure(options))
    note(f"in smaller models {summary['cpu']}, control {summary['control']}, MACs {summary['macs']:.3f}")
    settings = {name: getattr(options, name) for name in ("rounds", "epochs", "images", "batch_size", "seed")}
    return conclude(options.out, check(summary), settings, summary)


if __name__ == "__main__":
    sys.exit(main())
