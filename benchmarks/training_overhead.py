"""What pruning single weights adds to `fit`: in the steps between mask updates, and in an update.

Claims: between mask updates, `fit` with MagnitudePruning, RigL, GraNet or StaticSparsity takes at most 1.02 times the
CPU time of plain `fit`; and one update of the masks (also SET's) takes at most as much as 1.5 training steps. Both for
a ResNet-20 at 32 px in batches of 128 and MobileNetV2 at 96 px in batches of 32.

    python benchmarks/training_overhead.py    # about 20 minutes

Fits of the same network take turns in one process, a few batches at a time: one per callback, and two without. These
are real, whole fits with all that a callback adds to them, inside the compiled step and in its hooks around it, and
only their steady middle is timed: the first pieces, which hold tracing, are left out. CPU time of the process, as wall
time depends on what else the machine does; it is reported beside it. The two plain fits are the control (A/A): if they
differ by more than 2%, the machine is too noisy to tell.

A callback adds a fixed amount of work to a step, which grows with the number of weights only, so it weighs more the
smaller the batch: 128 is what the ResNet paper trains with, and 32 is Keras' own default. For the same reason the
optimizer is SGD with momentum, the cheapest that anyone trains these networks with. An update is compared with steps of
SGD and of Adam, which has more state to reset.

The time of an update is that of the callback's `on_train_batch_end` in which it is made. What the fit takes longer for
it in all is reported beside it. RigL also gives a training step to each update, in which the weights stay as they are:
that step is in neither number, as plain fit makes it too, but it is lost to training.

With the extra `benchmarks` installed, `prune_low_magnitude` of tensorflow-model-optimization is measured in the same
way, on the same ResNet-20 made with tf_keras, over plain tf_keras.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _fits import Times, Turn, in_turns, resnet20, resnet20_of
from _shared import Claim, Spread, arguments, conclude, note, ratio_spread, spread

from tfprune.callbacks import SET, GraNet, MagnitudePruning, RigL, SparseTraining, StaticSparsity
from tfprune.distributions import global_
from tfprune.schedules import Constant, Cosine, Polynomial

STEP_LIMIT = 1.02
UPDATE_LIMIT = 1.5
SPARSITY = 0.8
NEVER = 10**9
NUM_LEFT_OUT = 2  # pieces at the start of each fit: tracing, allocation
NUM_CLASSES = 10
PLAIN = ("plain", "plain again")


@dataclasses.dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        make: Makes a new model that returns logits.
        pixels: Height and width of the images.
        batch_size: How many of them in a step.
    """

    make: Callable[[], keras.Model]
    pixels: int
    batch_size: int


def mobilenet() -> keras.Model:
    """Return MobileNetV2 at 96 px."""
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(96, 96, 3), classes=NUM_CLASSES, classifier_activation=None
    )


def tiny() -> keras.Model:
    """Return what `--quick` trains."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(NUM_CLASSES),
        ]
    )


NETWORKS = {"ResNet-20": Network(resnet20, 32, 128), "MobileNetV2": Network(mobilenet, 96, 32)}
QUICK = {"tiny": Network(tiny, 16, 4)}
OPTIMIZERS = {"SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9), "Adam": lambda: keras.optimizers.Adam()}

# Their masks change with the first step or before it, and never again.
BETWEEN: dict[str, Callable[[], SparseTraining]] = {
    "MagnitudePruning": lambda: MagnitudePruning(Polynomial(SPARSITY, initial=0.5, end=1, frequency=NEVER)),
    "RigL": lambda: RigL(SPARSITY, drop=Cosine(0.3, frequency=NEVER)),
    "GraNet": lambda: GraNet(Polynomial(SPARSITY, initial=0.5, end=1, frequency=NEVER)),
    "StaticSparsity": lambda: StaticSparsity(SPARSITY),
}
# Their masks change in every other step: once in each piece of two batches.
PERIOD = 2
UPDATING: dict[str, Callable[[int], SparseTraining]] = {
    "MagnitudePruning": lambda end: MagnitudePruning(_gradual(end)),
    "MagnitudePruning, global": lambda end: MagnitudePruning(_gradual(end), distribution=global_),
    "SET": lambda end: SET(SPARSITY, drop=Constant(0.3, frequency=PERIOD)),
    "RigL": lambda end: RigL(SPARSITY, drop=Cosine(0.3, end=end, frequency=PERIOD)),
    "GraNet": lambda end: GraNet(_gradual(end)),
}


def _gradual(end: int) -> Polynomial:
    return Polynomial(SPARSITY, initial=0.5, end=end, frequency=PERIOD)


class Updates:
    """Counts the mask updates of a callback, and times the hook in which they are made.

    Args:
        callback: The callback to watch.

    Attributes:
        steps: After which steps the masks were updated, counted from 0.
        cpu: The seconds of CPU time of each of these updates.
    """

    def __init__(self, callback: SparseTraining) -> None:
        self.steps: list[int] = []
        self.cpu: list[float] = []
        self._callback = callback
        self._update = callback.update_masks
        self._updated = False
        self._start = 0.0
        self._step = 0
        callback.update_masks = self._counted  # type: ignore[method-assign]

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return the watched callback between two that take the time of its hook."""
        before = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: self._before())
        after = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: self._after())
        return [before, self._callback, after]

    def _counted(self, weights: Any, masks: Any, gradients: Any, time: int) -> Any:
        self._updated = True
        return self._update(weights, masks, gradients, time)

    def _before(self) -> None:
        self._updated = False
        self._start = time.process_time()

    def _after(self) -> None:
        if self._updated:
            self.cpu.append(time.process_time() - self._start)
            self.steps.append(self._step)
        self._step += 1


def batches(network: Network, seed: int) -> tf.data.Dataset:
    """Return random images and classes in batches, without end: each fit takes as many as it trains for."""
    rng = np.random.default_rng(seed)
    count = 2 * network.batch_size
    images = rng.normal(size=(count, network.pixels, network.pixels, 3)).astype("float32")
    return (
        tf.data.Dataset.from_tensor_slices((images, rng.integers(0, NUM_CLASSES, count)))
        .repeat()
        .batch(network.batch_size)
    )


def fit(
    network: Network,
    optimizer: str,
    make: Callable[[], SparseTraining] | None,
    watched: dict[str, Updates],
    steps: int,
    seed: int,
    name: str,
    turn: Turn,
) -> None:
    """Make a model and train it in turns, with a callback or without; `watched` gets the callback's updates."""
    keras.utils.set_random_seed(seed)
    model = network.make()
    model.compile(OPTIMIZERS[optimizer](), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruning: list[keras.callbacks.Callback] = []
    if make is not None:
        watched[name] = Updates(make())
        pruning = watched[name].callbacks()
    model.fit(
        batches(network, seed), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[*pruning, turn.callback()]
    )


def measure_steps(network: Network, pieces: int, num_batches: int, seed: int) -> dict[str, Times]:
    """Run fits between updates in turns, and return what their pieces took; the first ones are left out.

    Raises:
        RuntimeError: If masks were updated in a piece that was timed.
    """
    steps = num_batches * (pieces + NUM_LEFT_OUT)
    watched: dict[str, Updates] = {}
    run = partial(fit, network, "SGD")
    fits = {name: partial(run, BETWEEN.get(name), watched, steps, seed, name) for name in (*PLAIN, *BETWEEN)}
    taken = in_turns(fits, num_batches)
    late = {name: updates.steps for name, updates in watched.items() if max(updates.steps, default=0) >= num_batches}
    if late:
        raise RuntimeError(f"Masks were updated in pieces that should have no update, after these steps: {late}.")
    return _without_first(taken)


def measure_updates(
    network: Network, optimizer: str, rounds: int, seed: int
) -> tuple[dict[str, Times], dict[str, list[float]]]:
    """Run fits that update their masks once in each piece; return what the pieces took, and the updates.

    Raises:
        RuntimeError: If masks were not updated once in each piece.
    """
    steps = PERIOD * (rounds + NUM_LEFT_OUT) + 1  # one more: the last step is special
    watched: dict[str, Updates] = {}
    run = partial(fit, network, optimizer)
    makes = {name: partial(make, steps) for name, make in UPDATING.items()}
    fits = {name: partial(run, makes.get(name), watched, steps, seed, name) for name in (*PLAIN, *UPDATING)}
    taken = in_turns(fits, PERIOD)
    cpu = {}
    for name, updates in watched.items():
        pairs = zip(updates.steps, updates.cpu, strict=True)
        by_piece = [(step // PERIOD, seconds) for step, seconds in pairs if step < steps - 1]
        if [piece for piece, _ in by_piece] != list(range(rounds + NUM_LEFT_OUT)):
            raise RuntimeError(f"Expected one update of {name} in each {PERIOD} steps. Received: {updates.steps}.")
        cpu[name] = [seconds for _, seconds in by_piece[NUM_LEFT_OUT:]]
    return _without_first(taken), cpu


def measure_tfmot(pieces: int, num_batches: int, seed: int) -> dict[str, Times] | None:
    """The same with tensorflow-model-optimization on tf_keras; None if they are not installed."""
    try:
        import tensorflow_model_optimization as tfmot
        import tf_keras
    except ImportError:
        return None
    network = NETWORKS["ResNet-20"]
    sparsity = tfmot.sparsity.keras

    def train(pruned: bool, turn: Turn) -> None:
        tf_keras.utils.set_random_seed(seed)
        model = resnet20_of(tf_keras)
        if pruned:
            schedule = sparsity.ConstantSparsity(SPARSITY, begin_step=0, frequency=NEVER)
            model = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
        model.compile(
            tf_keras.optimizers.SGD(0.1, momentum=0.9), tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        callbacks = [sparsity.UpdatePruningStep()] if pruned else []
        steps = num_batches * (pieces + NUM_LEFT_OUT)
        model.fit(
            batches(network, seed),
            steps_per_epoch=steps,
            shuffle=False,
            verbose=0,
            callbacks=[*callbacks, turn.callback(tf_keras)],
        )

    fits = {name: partial(train, name not in PLAIN) for name in (*PLAIN, "prune_low_magnitude")}
    return _without_first(in_turns(fits, num_batches))


def _without_first(taken: Mapping[str, Times]) -> dict[str, Times]:
    return {name: Times(times.cpu[NUM_LEFT_OUT:], times.wall[NUM_LEFT_OUT:]) for name, times in taken.items()}


def plain_pieces(taken: Mapping[str, Times], clock: str = "cpu") -> list[float]:
    """Return what a piece of the two plain fits took on average, round by round."""
    return list(np.mean([getattr(taken[name], clock) for name in PLAIN], axis=0))


def summarize_steps(repeats: Sequence[Mapping[str, Times]], num_batches: int) -> dict[str, Any]:
    """Return the ratios of pieces of the same round, with a callback over without and without over without."""
    pooled = _pooled(repeats)
    plain = {clock: plain_pieces(pooled, clock) for clock in ("cpu", "wall")}

    def ratios(numerator: Times, denominator: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
        return {clock: ratio_spread(getattr(numerator, clock), denominator[clock]) for clock in ("cpu", "wall")}

    return {
        "overhead": {name: ratios(times, plain) for name, times in pooled.items() if name not in PLAIN},
        "control": ratios(pooled[PLAIN[1]], vars(pooled[PLAIN[0]])),
        "plain_cpu_ms_per_batch": spread(np.multiply(plain["cpu"], 1e3 / num_batches)),
        "added_cpu_ms_per_batch": {
            name: spread(np.subtract(times.cpu, plain["cpu"]) * 1e3 / num_batches)
            for name, times in pooled.items()
            if name not in PLAIN
        },
    }


def summarize_updates(taken: Mapping[str, Times], updates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return what an update takes, and what the fit takes longer for it, in plain steps of the same round."""
    steps = [seconds / PERIOD for seconds in plain_pieces(taken)]
    return {
        "update_over_step": {name: ratio_spread(seconds, steps) for name, seconds in updates.items()},
        "added_over_step": {
            name: ratio_spread(np.subtract(taken[name].cpu, plain_pieces(taken)).tolist(), steps) for name in updates
        },
        "control": ratio_spread(taken[PLAIN[1]].cpu, taken[PLAIN[0]].cpu),
        "plain_cpu_ms_per_batch": spread(np.multiply(steps, 1e3)),
        "update_cpu_ms": {name: spread(np.multiply(seconds, 1e3)) for name, seconds in updates.items()},
    }


def check(measured: Mapping[str, Any]) -> list[Claim]:
    """Return the claims and their controls; tensorflow-model-optimization is reported only."""
    claims = []
    for network, row in measured["steps"].items():
        for name, ratio in row["overhead"].items():
            text = f"{network}, {name}: CPU time between updates over plain fit, median"
            claims.append(Claim(text, ratio["cpu"].median, STEP_LIMIT))
        text = f"{network}, control: difference of two plain fits (else too noisy to tell), median"
        claims.append(Claim(text, abs(row["control"]["cpu"].median - 1), STEP_LIMIT - 1))
    for network, optimizers in measured["updates"].items():
        for optimizer, row in optimizers.items():
            for name, ratio in row["update_over_step"].items():
                text = f"{network}, {optimizer}, {name}: CPU time of an update over a plain step, median"
                claims.append(Claim(text, ratio.median, UPDATE_LIMIT))
    return claims


def main(command_line: Sequence[str] | None = None) -> int:
    """Measure, write the JSON, and return the exit status."""
    parser = arguments(__doc__, __file__)
    parser.add_argument("--repeats", type=int, default=3, help="fresh sets of fits between updates (default: 3)")
    parser.add_argument("--pieces", type=int, default=12, help="timed pieces of each of these fits (default: 12)")
    parser.add_argument("--batches", type=int, default=3, help="batches in a piece (default: 3)")
    parser.add_argument("--updates", type=int, default=12, help="timed updates of each callback (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and images (default: 0)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny network instead, to try the script; its numbers mean nothing"
    )
    options = parser.parse_args(command_line)
    if min(options.repeats, options.pieces, options.batches, options.updates) < 1:
        parser.error("--repeats, --pieces, --batches and --updates must be at least 1.")
    if options.quick and options.out == parser.get_default("out"):
        parser.error("--quick measures nothing worth keeping: give --out too.")
    networks = QUICK if options.quick else {name: NETWORKS[name] for name in options.networks}
    load = [os.getloadavg()]
    measured: dict[str, Any] = {
        "steps": {name: _steps(name, network, options) for name, network in networks.items()},
        "updates": {
            name: {optimizer: _updates(name, network, optimizer, options) for optimizer in OPTIMIZERS}
            for name, network in networks.items()
        },
        "tfmot": None if options.quick else _tfmot(options),
    }
    measured["load_average_before_and_after"] = [*load, os.getloadavg()]
    settings = {name: getattr(options, name) for name in ("repeats", "pieces", "batches", "updates", "seed", "quick")}
    settings["batch_sizes"] = {name: network.batch_size for name, network in networks.items()}
    return conclude(options.out, check(measured), settings, measured)


def _steps(name: str, network: Network, options: argparse.Namespace) -> dict[str, Any]:
    repeats = []
    for repeat in range(options.repeats):
        repeats.append(measure_steps(network, options.pieces, options.batches, options.seed + repeat))
        _tell(f"{name}, fits {repeat + 1}/{options.repeats}", summarize_steps(repeats[-1:], options.batches))
    return summarize_steps(repeats, options.batches)


def _updates(name: str, network: Network, optimizer: str, options: argparse.Namespace) -> dict[str, Any]:
    row = summarize_updates(*measure_updates(network, optimizer, options.updates, options.seed))
    told = ", ".join(f"{callback} {ratio}" for callback, ratio in row["update_over_step"].items())
    note(f"{name}, {optimizer}, update over step: {told}; load {os.getloadavg()[0]:.1f}")
    return row


def _tfmot(options: argparse.Namespace) -> dict[str, Any] | None:
    repeats = []
    for repeat in range(options.repeats):
        taken = measure_tfmot(options.pieces, options.batches, options.seed + repeat)
        if taken is None:
            note(
                "Not measured: tensorflow-model-optimization and tf_keras are not installed. "
                'To measure them beside tfprune: pip install "tfprune\\[benchmarks]".'
            )
            return None
        repeats.append(taken)
        _tell(f"tf_keras, fits {repeat + 1}/{options.repeats}", summarize_steps(repeats[-1:], options.batches))
    return summarize_steps(repeats, options.batches)


def _tell(where: str, row: Mapping[str, Any]) -> None:
    told = ", ".join(f"{name} {ratio['cpu']}" for name, ratio in row["overhead"].items())
    control = f"control {row['control']['cpu']} (wall {row['control']['wall']})"
    note(f"{where}: {told}, {control}; load {os.getloadavg()[0]:.1f}")


def _pooled(repeats: Sequence[Mapping[str, Times]]) -> dict[str, Times]:
    return {
        name: Times(
            [s for taken in repeats for s in taken[name].cpu], [s for taken in repeats for s in taken[name].wall]
        )
        for name in repeats[0]
    }


if __name__ == "__main__":
    sys.exit(main())
