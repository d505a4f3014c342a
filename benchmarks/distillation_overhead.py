"""What a training step with a teacher takes longer than one without.

Claim: a step of `fit` of a `distill` model, whose teacher is as large as its student, takes at most 1.5 times the CPU
time of a plain step. A step is one forward and one backward pass, which costs about two forward passes; one more makes
1.33.

    python benchmarks/distillation_overhead.py    # about 3 minutes

Fits of a ResNet-20 at 32 px in batches of 128, with SGD, take turns in one process, a few batches at a time: two
without a teacher (the control), one with a teacher, one with hints from three layers too, and one by its own moving
average. They are whole fits, and the first pieces, which hold tracing, are left out. CPU time of the process counts, as
wall time depends on what else the machine does.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import keras
from _fits import Turn, resnet20
from _shared import Claim, arguments, conclude
from quantization_overhead import measure
from training_overhead import NETWORKS, PLAIN, batches

import tfprune

LIMIT = 1.5
Kind = Literal["teacher", "teacher and hints", "moving average"]
NETWORK = NETWORKS["ResNet-20"]


def train(kind: Kind | None, steps: int, seed: int, turn: Turn) -> None:
    """Train in turns: without a teacher, or with one of this kind."""
    keras.utils.set_random_seed(seed)
    model, teacher = resnet20(), resnet20()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    if kind == "moving average":
        model = tfprune.distill(model, tfprune.MovingAverage())
    elif kind is not None:
        ends = [
            [layer for layer in each.layers if isinstance(layer, keras.layers.Add)][2::3] for each in (model, teacher)
        ]
        pairs = list(zip(*ends, strict=True)) if kind == "teacher and hints" else []
        model = tfprune.distill(model, teacher, loss="softmax", features=pairs)
    data = batches(NETWORK, seed)
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[turn.callback()])


def check(measured: dict[str, Any]) -> list[Claim]:
    """Return the claims and the control."""
    claims = [
        Claim(f"{name}: CPU time over plain fit, median", row["cpu"].median, LIMIT)
        for name, row in measured["overhead"].items()
    ]
    text = "control: difference of two plain fits (else too noisy to tell), median"
    return [*claims, Claim(text, abs(measured["control"].median - 1), 0.02)]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--repeats", type=int, default=1, help="fresh sets of fits (default: 1)")
    parser.add_argument("--pieces", type=int, default=10, help="timed pieces of each fit (default: 10)")
    parser.add_argument("--batches", type=int, default=2, help="batches in a piece (default: 2)")
    options = parser.parse_args(command_line)
    if min(options.repeats, options.pieces, options.batches) < 1:
        parser.error("--repeats, --pieces and --batches must be at least 1.")
    fits: dict[str, Any] = {name: partial(train, None) for name in PLAIN}
    fits |= {kind: partial(train, kind) for kind in get_args(Kind)}
    measured = measure(fits, options.pieces, options.batches, options.repeats)
    measured["load_average"] = os.getloadavg()
    settings = {name: getattr(options, name) for name in ("repeats", "pieces", "batches")}
    return conclude(options.out, check(measured), settings, measured)


if __name__ == "__main__":
    sys.exit(main())
