"""The table of callbacks that prune single weights, the network they prune in tests, and what is watched meanwhile."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
from networks import compiled, images

from tfprune.callbacks import DSR, SET, GraNet, MagnitudePruning, RigL, StaticSparsity
from tfprune.distributions import erdos_renyi_kernel, global_
from tfprune.granularity import Block, NofM
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant, Cosine, Polynomial
from tfprune.training.masks import recorded_mask

L = keras.layers
SHAPE = (6, 6, 4)
STEPS = 4  # per epoch: 32 samples, 8 at a time


@dataclass(frozen=True)
class Row:
    """One variant of a callback.

    Attributes:
        name: What the test's id shows.
        make: Makes the callback for a seed; called anew for every fit.
        sparsity: From the number of steps done to the sparsity that is due.
        split: How it is split over layers.
        gradients: Whether an update needs gradients, and whether it takes the place of a step.
        updates: After how many steps of 12 the masks are updated.
        seeded: Whether the masks depend on the seed.
        grows: Whether pruned weights come back.
    """

    name: str
    make: Callable[[int], keras.callbacks.Callback]
    sparsity: Callable[[int], float]
    split: str
    updates: tuple[int, ...] = ()
    gradients: str = "none"
    seeded: bool = True
    grows: bool = True


def cubic(initial, final, begin, end, updates):
    """The sparsity of gradual pruning by the last update before a step, written down once more."""

    def due(step):
        made = [update for update in updates if update <= step]
        if not made:
            return 0.0 if begin else initial
        return final + (initial - final) * (1 - (made[-1] - begin) / (end - begin)) ** 3

    return due


def always(sparsity):
    return lambda step: sparsity


RATE = Cosine(0.4, end=10, frequency=3)
GRANET_DROP = Cosine(0.5, final=0.005, end=12, frequency=2)
ROWS = [
    Row(
        "MagnitudePruning",
        lambda seed: MagnitudePruning(Polynomial(0.6, end=9, frequency=2)),
        cubic(0.0, 0.6, 0, 9, (2, 4, 6, 8, 9)),
        "layer",
        updates=(2, 4, 6, 8, 9),
        seeded=False,
        grows=False,
    ),
    Row(
        "MagnitudePruning-global",
        lambda seed: MagnitudePruning(Polynomial(0.7, initial=0.2, begin=1, end=8, frequency=3), distribution=global_),
        cubic(0.2, 0.7, 1, 8, (1, 4, 7, 8)),
        "total",
        updates=(1, 4, 7, 8),
        seeded=False,
        grows=False,
    ),
    Row(
        "MagnitudePruning-2-of-4",
        lambda seed: MagnitudePruning(Polynomial(0.5, end=8, frequency=2), granularity=NofM(2, 4)),
        cubic(0.0, 0.5, 0, 8, (2, 4, 6, 8)),
        "layer",
        updates=(2, 4, 6, 8),
        seeded=False,
        grows=False,
    ),
    Row(
        "MagnitudePruning-block",
        lambda seed: MagnitudePruning(Polynomial(0.5, end=8, frequency=4), granularity=Block((2, 2))),
        cubic(0.0, 0.5, 0, 8, (4, 8)),
        "block",
        updates=(4, 8),
        seeded=False,
        grows=False,
    ),
    Row(
        "SET-sign",
        lambda seed: SET(0.6, drop=Constant(0.3, end=3, frequency=1, unit="epochs"), seed=seed),
        always(0.6),
        "erk",
        updates=(4, 8),
    ),
    Row(
        "SET-magnitude",
        lambda seed: SET(0.6, criterion="magnitude", drop=Constant(0.3, end=12, frequency=3), seed=seed),
        always(0.6),
        "erk",
        updates=(3, 6, 9),
    ),
    Row(
        "RigL",
        lambda seed: RigL(0.6, drop=RATE, seed=seed),
        always(0.6),
        "erk",
        updates=(1, 4, 7, 10),  # steps 0, 3, 6 and 9 are given to updates
        gradients="instead_of_update",
    ),
    Row(
        "RigL-constant",
        lambda seed: RigL(0.6, drop=Constant(0.3, begin=2, end=11, frequency=4), seed=seed),
        always(0.6),
        "erk",
        updates=(3, 7, 11),
        gradients="instead_of_update",
    ),
    Row(
        "GraNet",
        lambda seed: GraNet(Polynomial(0.8, initial=0.5, end=8, frequency=2), drop=GRANET_DROP, seed=seed),
        cubic(0.5, 0.8, 0, 8, (2, 4, 6, 8)),
        "total",
        updates=(2, 4, 6, 8, 10),
        gradients="after_update",
    ),
    Row(
        "GraNet-dense",
        lambda seed: GraNet(Polynomial(0.8, initial=0.0, end=8, frequency=2), drop=GRANET_DROP, seed=seed),
        cubic(0.0, 0.8, 0, 8, (2, 4, 6, 8)),
        "total",
        updates=(2, 4, 6, 8, 10),
        gradients="after_update",
        seeded=False,
    ),
    Row(
        "DSR",
        lambda seed: DSR(0.5, drop=Constant(0.2, end=12, frequency=5), first_layer_dense=False, seed=seed),
        always(0.5),
        "total",
        updates=(5, 10),
    ),
    Row("StaticSparsity", lambda seed: StaticSparsity(0.6, seed=seed), always(0.6), "erk", grows=False),
]
BY_NAME = {row.name: row for row in ROWS}
_FEW = ("MagnitudePruning-global", "SET-sign", "RigL", "GraNet-dense")
FEW = [row if row.name in _FEW else pytest.param(row, marks=pytest.mark.slow) for row in ROWS]
"""All rows as parameters of a test, of which one of each kind is in the default run."""


def network(**kernel_options):
    """Two convolutions and a classifier whose inputs are whole groups of four."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(4, 3, padding="same", use_bias=False, name="first", **kernel_options),
            L.BatchNormalization(momentum=0.9, name="norm"),
            L.ReLU(),
            L.Conv2D(8, 3, name="second", **kernel_options),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes", **kernel_options),
        ]
    )


def perceptron(**kernel_options):
    """Two Dense layers for the same data: the fastest to trace."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Flatten(),
            L.Dense(8, "relu", name="hidden", **kernel_options),
            L.Dense(4, name="classes", **kernel_options),
        ]
    )


def data(count=32, seed=0):
    return images(count, seed, SHAPE)


def ready(optimizer=None, model=None, **options):
    """A compiled perceptron, or the model given, by default with an optimizer that remembers and is quick to trace."""
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    return compiled(model or perceptron(), optimizer, **{"jit_compile": False, **options})


def fit(model, *callbacks, epochs=3, **options):
    """Twelve steps by default, in one order; return the history."""
    return model.fit(
        *data(), batch_size=8, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0, **options
    ).history


def optimizers_of(model):
    """The optimizers that update weights: what a LossScaleOptimizer or a MultiOptimizer hands them to."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return getattr(optimizer, "optimizers", [optimizer])


def slots_of(model, variable):
    """The optimizers' variables of the weight's shape, by their names, and what each starts with."""
    found = []
    for optimizer in optimizers_of(model):
        if isinstance(optimizer, keras.optimizers.Adafactor) and len(variable.shape) > 1:
            continue  # its velocity is made anew in every step from what it remembers of rows and columns
        own = [v for v in optimizer.variables if v.name.startswith(variable.path.replace("/", "_") + "_")]
        for slot in own:
            accumulator = slot.name.endswith("accumulator") and "gradient" not in slot.name
            start = optimizer.initial_accumulator_value if accumulator else 0.0
            if tuple(slot.shape) == tuple(variable.shape) and not any(slot is other for other, _ in found):
                found.append((slot, start))
    return found


@dataclass
class Batch:
    """What was seen at the end of a batch."""

    step: int
    masks: dict[str, np.ndarray]
    began: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]


@dataclass
class Seen:
    """All that a `Watcher` has seen; `wrong` names every breach of a promise."""

    batches: list[Batch] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    num_slots: int = 0
    num_tests: int = 0


class Watcher(keras.callbacks.Callback):
    """Placed first: looks at masked weights and their slots at every batch end, before anybody else.

    Args:
        callback: The callback that is watched.
        keep: Whether to keep copies of what is seen.
    """

    def __init__(self, callback, keep=False):
        super().__init__()
        self.callback = callback
        self.keep = keep
        self.seen = Seen()
        self.step = 0

    def look(self, when):
        masks = self.callback.masks
        for kernel in kernels(self.model):
            if kernel.name in masks:
                self._check(kernel, masks[kernel.name], when)
        return masks

    def _check(self, kernel, mask, when):
        values = kernel.variable.numpy()
        if (values[~mask] != 0).any():
            self.seen.wrong.append(f"{when}: {kernel.name} is not zero")
        if not np.array_equal(recorded_mask(kernel.variable), mask):
            self.seen.wrong.append(f"{when}: {kernel.name} does not carry its mask")
        slots = slots_of(self.model, kernel.variable)
        self.seen.num_slots += len(slots)
        for slot, start in slots:
            if (slot.numpy()[~mask] != start).any():
                self.seen.wrong.append(f"{when}: {slot.name} remembers masked weights")

    def on_train_batch_begin(self, batch, logs=None):
        if self.keep:
            self.began = {v.path: v.numpy().copy() for v in self.model.trainable_variables}

    def on_train_batch_end(self, batch, logs=None):
        self.step += int(self.model.steps_per_execution)
        masks = self.look(f"step {self.step}")
        if self.keep:
            weights = {v.path: v.numpy().copy() for v in self.model.trainable_variables}
            slots = {v.path: v.numpy().copy() for v in self.model.optimizer.variables}
            self.seen.batches.append(
                Batch(self.step, {n: m.copy() for n, m in masks.items()}, self.began, weights, slots)
            )

    def on_test_end(self, logs=None):
        self.seen.num_tests += 1
        self.look("evaluate")


def watch(row, model, *callbacks, seed=3, keep=False, **options):
    """Fit with a new callback of the row behind a watcher; nothing may go wrong. Return both."""
    callback = row.make(seed)
    watcher = Watcher(callback, keep)
    fit(model, watcher, callback, *callbacks, **options)
    assert watcher.seen.wrong == []
    assert watcher.step >= 4
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)
    return callback, watcher


def masks_of(model):
    """The masks that the weights of a model carry, by kernel name."""
    return {kernel.name: recorded_mask(kernel.variable) for kernel in kernels(model)}


def pruned(model):
    """How many weights are zero, by kernel name."""
    return {kernel.name: int((kernel.variable.numpy() == 0).sum()) for kernel in kernels(model)}


def floor(number):
    return math.floor(round(number, 9))


def promised(row, model, step):
    """How many weights of each kernel are pruned after a step, or under "total" how many of all."""
    sparsity = row.sparsity(step)
    shapes = {kernel.name: tuple(kernel.variable.shape) for kernel in kernels(model)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if row.split == "erk" or (row.name == "GraNet" and step < row.updates[0]):
        return erdos_renyi_kernel({name: np.ones(shape) for name, shape in shapes.items()}, sparsity)
    if row.split == "total":
        return {"total": floor(sum(sizes.values()) * sparsity)}
    return {name: floor(size * sparsity) for name, size in sizes.items()}


def same_arrays(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def state_of(model):
    """Bit patterns of all weights and of all optimizer variables, so that -0.0 differs from 0.0."""
    return [v.numpy().tobytes() for v in (*model.weights, *model.optimizer.variables)]
