"""What quantization-aware training takes longer than training in float.

Claim: a step of `fit` of a `quantize_aware` ResNet-20 takes at most 1.14 times the CPU time of a step of the float
model. The quantization-aware training of tensorflow-model-optimization on tf_keras is measured beside it.

    python benchmarks/quantization_overhead.py    # about 10 minutes

Fits of the same network at 32 px in batches of 128, with SGD, take turns in one process, a few batches at a time: two
in float (the control), and one for each way to treat BatchNormalization. They are whole fits, and the first pieces,
which hold tracing, are left out. CPU time of the process counts, as wall time depends on what else the machine does.

With the extra `benchmarks` installed, `quantize_model` of tensorflow-model-optimization is measured in the same way on
the same ResNet-20 made with tf_keras, over plain tf_keras.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import keras
from _fits import Times, Turn, in_turns, resnet20, resnet20_of
from _shared import Claim, arguments, conclude, note, ratio_spread, spread
from training_overhead import NETWORKS, NUM_LEFT_OUT, PLAIN, batches, plain_pieces

import tfprune

LIMIT = 1.14
Mode = Literal["train", "freeze", "fold"]
NETWORK = NETWORKS["ResNet-20"]


def train(mode: Mode | None, steps: int, seed: int, turn: Turn) -> None:
    """Train in turns: in float, or quantization-aware with BatchNormalization treated in this way."""
    keras.utils.set_random_seed(seed)
    model = resnet20()
    if mode is not None:
        model = tfprune.quantize_aware(model, batch_normalization=mode)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = batches(NETWORK, seed)
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[turn.callback()])


def train_tfmot(quantized: bool, steps: int, seed: int, turn: Turn) -> None:
    """The same with tensorflow-model-optimization on tf_keras."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    model = resnet20_of(tf_keras)
    if quantized:
        model = tfmot.quantization.keras.quantize_model(model)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9), loss)
    callbacks = [turn.callback(tf_keras)]
    model.fit(batches(NETWORK, seed), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=callbacks)


def measure(fits: Mapping[str, Any], pieces: int, num_batches: int, repeats: int) -> dict[str, Any]:
    """Run the fits in turns, and return the ratios of pieces of the same round."""
    pooled: dict[str, Times] = {}
    for repeat in range(repeats):
        steps = num_batches * (pieces + NUM_LEFT_OUT)
        taken = in_turns({name: partial(fit, steps, repeat) for name, fit in fits.items()}, num_batches)
        for name, times in taken.items():
            row = pooled.setdefault(name, Times())
            row.cpu += times.cpu[NUM_LEFT_OUT:]
            row.wall += times.wall[NUM_LEFT_OUT:]
        note(f"{repeat + 1}/{repeats}: {_told(_summary(pooled, num_batches))}; load {os.getloadavg()[0]:.1f}")
    return _summary(pooled, num_batches)


def _summary(pooled: Mapping[str, Times], num_batches: int) -> dict[str, Any]:
    plain = {clock: plain_pieces(pooled, clock) for clock in ("cpu", "wall")}
    return {
        "overhead": {
            name: {clock: ratio_spread(getattr(times, clock), plain[clock]) for clock in plain}
            for name, times in pooled.items()
            if name not in PLAIN
        },
        "control": ratio_spread(pooled[PLAIN[1]].cpu, pooled[PLAIN[0]].cpu),
        "plain_cpu_ms_per_batch": spread([1e3 * seconds / num_batches for seconds in plain["cpu"]]),
    }


def _told(row: Mapping[str, Any]) -> str:
    ratios = [f"{name} {ratio['cpu']}" for name, ratio in row["overhead"].items()]
    return ", ".join([*ratios, f"control {row['control']}"])


def check(measured: Mapping[str, Any]) -> list[Claim]:
    """Return the claims and the control."""
    rows = measured["tfprune"]["overhead"]
    claims = [Claim(f"{name}: CPU time over float, median", row["cpu"].median, LIMIT) for name, row in rows.items()]
    text = "control: difference of two float fits (else too noisy to tell), median"
    return [*claims, Claim(text, abs(measured["tfprune"]["control"].median - 1), 0.02)]


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--repeats", type=int, default=3, help="fresh sets of fits (default: 3)")
    parser.add_argument("--pieces", type=int, default=10, help="timed pieces of each fit (default: 10)")
    parser.add_argument("--batches", type=int, default=2, help="batches in a piece (default: 2)")
    options = parser.parse_args(command_line)
    if min(options.repeats, options.pieces, options.batches) < 1:
        parser.error("--repeats, --pieces and --batches must be at least 1.")
    run = partial(measure, pieces=options.pieces, num_batches=options.batches, repeats=options.repeats)
    modes = {f"quantize_aware, BatchNormalization {mode}": partial(train, mode) for mode in get_args(Mode)}
    measured: dict[str, Any] = {"tfprune": run({**{name: partial(train, None) for name in PLAIN}, **modes})}
    try:
        import tensorflow_model_optimization  # noqa: F401
    except ImportError:
        note('To measure TF-MOT beside tfprune: pip install "tfprune\\[benchmarks]".')
        measured["tfmot"] = None
    else:
        fits = {name: partial(train_tfmot, name not in PLAIN) for name in (*PLAIN, "quantize_model")}
        measured["tfmot"] = run(fits)
    measured["load_average"] = os.getloadavg()
    settings = {name: getattr(options, name) for name in ("repeats", "pieces", "batches")}
    return conclude(options.out, check(measured), settings, measured)


if __name__ == "__main__":
    sys.exit(main())
