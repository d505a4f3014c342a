"""Masked weights stay exactly zero however the model is compiled, in every callback of tests/sparse_rows.py."""

import contextlib
import inspect
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pytest
from sparse_rows import (
    BY_NAME,
    ROWS,
    Watcher,
    data,
    fit,
    floor,
    masks_of,
    network,
    perceptron,
    promised,
    pruned,
    ready,
    watch,
)

from tfprune.callbacks import SET, MagnitudePruning
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant, Polynomial

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def several_optimizers():
    """One optimizer for the hidden layer and another for the rest, each with memory."""
    parts = {".*hidden.*": keras.optimizers.Adagrad(0.05, use_ema=True)}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(SGD(0.05, momentum=0.9), parts))


SPECIAL = {
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(SGD(0.05, momentum=0.9)),
    "MultiOptimizer": several_optimizers,
    "SGD": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.05, l1_regularization_strength=0.001),
}
OPTIMIZERS = {
    name: SPECIAL.get(name, found)
    for name, found in vars(keras.optimizers).items()
    if inspect.isclass(found)
    and issubclass(found, keras.optimizers.Optimizer)
    and found is not keras.optimizers.Optimizer
}


class Clip(keras.constraints.Constraint):
    """As in the documentation of Keras; what was negative becomes -0.0."""

    def __call__(self, weights):
        return weights * keras.ops.cast(weights >= 0, weights.dtype)


@dataclass(frozen=True)
class Setting:
    """One way to compile and train.

    Attributes:
        optimizer: Makes the optimizer.
        compile: Further arguments of `compile`.
        policy: The data type policy.
        constraint: What the user has set on every kernel.
        before: Whether the model is trained without the callback first.
    """

    optimizer: Callable[[], Any] = Adam
    compile: tuple[tuple[str, Any], ...] = ()
    policy: str = "float32"
    constraint: Any = None
    before: bool = False


SETTINGS = {
    "steps-per-execution": Setting(compile=(("steps_per_execution", 4),)),
    "steps-per-execution-uneven": Setting(compile=(("steps_per_execution", 3),)),
    "jit": Setting(compile=(("jit_compile", True),)),
    "jit-steps-per-execution": Setting(compile=(("jit_compile", True), ("steps_per_execution", 2))),
    "eager": Setting(compile=(("run_eagerly", True),)),
    "mixed_float16": Setting(policy="mixed_float16"),
    "mixed_float16-steps-per-execution": Setting(policy="mixed_float16", compile=(("steps_per_execution", 2),)),
    "mixed_bfloat16": Setting(policy="mixed_bfloat16"),
    "bfloat16": Setting(lambda: SGD(0.05, momentum=0.9), policy="bfloat16"),
    "float64": Setting(policy="float64"),
    "ema": Setting(lambda: SGD(0.05, use_ema=True, ema_momentum=0.5)),
    "ema-overwrite": Setting(lambda: Adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)),
    "ema-muon": Setting(lambda: keras.optimizers.Muon(use_ema=True, ema_overwrite_frequency=3)),
    "accumulation": Setting(lambda: Adam(gradient_accumulation_steps=2)),
    "accumulation-3-ema": Setting(lambda: SGD(0.05, momentum=0.9, gradient_accumulation_steps=3, use_ema=True)),
    "clipnorm": Setting(lambda: SGD(0.1, momentum=0.9, clipnorm=0.1)),
    "global-clipnorm": Setting(lambda: SGD(0.1, momentum=0.9, global_clipnorm=0.1)),
    "clipvalue": Setting(lambda: SGD(0.1, momentum=0.9, clipvalue=0.01)),
    "weight-decay": Setting(lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)),
    "amsgrad": Setting(lambda: Adam(amsgrad=True)),
    "non-neg": Setting(constraint="non_neg"),
    "clip": Setting(constraint=Clip()),
    "max-norm": Setting(constraint=keras.constraints.MaxNorm(0.5)),
    "unit-norm": Setting(constraint="unit_norm"),
    "fitted-before": Setting(before=True),
}


@contextlib.contextmanager
def policy(name):
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def check(row, setting, make_model=perceptron, **options):
    with policy(setting.policy):
        constraint = {} if setting.constraint is None else {"kernel_constraint": setting.constraint}
        model = ready(setting.optimizer(), make_model(**constraint), **dict(setting.compile))
        if setting.before:
            fit(model, epochs=1)
        _, watcher = watch(row, model, **options)
        assert "apply" not in vars(getattr(model.optimizer, "inner_optimizer", model.optimizer))
    if row.split != "block":
        zeros = {name: int((~mask).sum()) for name, mask in masks_of(model).items()}
        found = {"total": sum(zeros.values())} if row.split == "total" else zeros
        assert found == promised(row, model, 12)
        # A constraint and the L1 penalty of Ftrl make living weights zero; grown ones may not have moved yet.
        if setting.constraint is None and not row.grows and type(model.optimizer) is not keras.optimizers.Ftrl:
            assert zeros == pruned(model)
    return watcher


def rotated(table, offset):
    """Each entry with one row, such that the rows take turns."""
    return list(zip(table, itertools.islice(itertools.cycle(ROWS), offset, None), strict=False))


def ids(pair):
    return pair.name if hasattr(pair, "name") else str(pair)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "row"), rotated(OPTIMIZERS, 5), ids=ids)
def test_every_optimizer_of_keras(name, row):
    watcher = check(row, Setting(OPTIMIZERS[name]))
    assert watcher.seen.num_slots > 0 or name == "Adafactor"


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=ids)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_keras_with_every_callback(name, row):
    check(row, Setting(OPTIMIZERS[name]))


def test_all_optimizers_are_found():
    assert len(OPTIMIZERS) >= 16
    assert {"Adadelta", "ScheduleFreeAdamW", "Muon", "Lamb", "MultiOptimizer", "LossScaleOptimizer"} <= set(OPTIMIZERS)


RARE = {
    *("jit", "mixed_float16-steps-per-execution", "float64", "bfloat16", "ema-muon", "accumulation-3-ema"),
    *("clipvalue", "amsgrad", "clipnorm", "max-norm"),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "row"),
    [pytest.param(*pair, marks=pytest.mark.slow) if pair[0] in RARE else pair for pair in rotated(SETTINGS, 4)],
    ids=ids,
)
def test_every_way_to_train(name, row):
    check(row, SETTINGS[name])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["mixed_float16", "accumulation", "steps-per-execution-uneven"])
def test_ways_to_train_that_meet_the_captured_gradient(name):
    check(BY_NAME["RigL" if name == "accumulation" else "GraNet"], SETTINGS[name])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["steps-per-execution", "eager", "mixed_float16"])
def test_validation_is_of_the_masked_weights(name):
    watcher = check(BY_NAME["SET-magnitude"], SETTINGS[name], validation_data=data(8, seed=9))
    assert watcher.seen.num_tests == 3


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=ids)
@pytest.mark.parametrize("name", SETTINGS)
def test_every_way_to_train_with_every_callback(name, row):
    check(row, SETTINGS[name])
    if SETTINGS[name].constraint is None:
        check(row, SETTINGS[name], network)


def test_a_constraint_that_makes_living_weights_zero_does_not_mask_them():
    for constraint in ("non_neg", Clip()):
        model = ready(SGD(0.1), perceptron(kernel_constraint=constraint))
        watch(BY_NAME["StaticSparsity"], model, epochs=1)
        masked = sum(int((~mask).sum()) for mask in masks_of(model).values())
        assert sum(pruned(model).values()) > masked + 10


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["SGD", "Adam", "MultiOptimizer"])
def test_moving_averages_of_the_last_update_are_masked_too(name):
    """The average becomes the weight when training ends, also where an update fell on the last step."""
    optimizer = several_optimizers() if name == "MultiOptimizer" else getattr(keras.optimizers, name)(use_ema=True)
    model = ready(optimizer)
    fit(model, MagnitudePruning(Polynomial(0.75, end=12, frequency=3)))
    for kernel in kernels(model):
        size = kernel.variable.numpy().size
        assert pruned(model)[kernel.name] == int((~masks_of(model)[kernel.name]).sum()) == floor(size * 0.75)


def test_slots_start_anew_with_what_the_optimizer_gives_them():
    """Of Adagrad that is not zero, also inside a MultiOptimizer."""
    model = ready(several_optimizers())
    _, watcher = watch(BY_NAME["RigL"], model)
    slot = next(v for v in model.optimizer.variables if "hidden_kernel_accumulator" in v.name)
    assert (slot.numpy() >= 0.1 - 1e-6).all()
    assert watcher.seen.num_slots > 0


def test_iterations_of_all_parts_of_an_optimizer_count_a_step_that_is_given_to_an_update():
    model = ready(several_optimizers())
    watch(BY_NAME["RigL"], model)
    parts = [model.optimizer, *model.optimizer.optimizers]
    assert [int(part.iterations.numpy()) for part in parts] == [12, 12, 12]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("samples", [40, 48])
def test_steps_are_counted_right_where_steps_per_execution_does_not_divide_them(samples):
    """An epoch of 5 or 6 steps is done in two calls; the schedule of SET in steps must not drift."""
    steps, times = samples // 8, []

    class Counted(SET):
        def update_masks(self, weights, masks, gradients, time):
            times.append(time)
            return super().update_masks(weights, masks, gradients, time)

    callback = Counted(0.5, drop=Constant(0.3, end=100, begin=steps, frequency=steps), seed=1)
    model = ready(steps_per_execution=4)
    model.fit(*data(samples), batch_size=8, epochs=4, callbacks=[Watcher(callback), callback], verbose=0)
    assert times == [steps, 2 * steps, 3 * steps, 4 * steps]


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from sparse_rows import ROWS, Watcher, fit, kernels, masks_of, pruned, ready
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
found = {}
for row in ROWS:
    for steps, policy in json.loads(sys.argv[1]):
        if row.name not in json.loads(sys.argv[3]):
            continue
        keras.utils.set_random_seed(1)
        keras.config.set_dtype_policy(policy)
        with strategy.scope():
            model = ready(steps_per_execution=steps)
        callback = row.make(3)
        watcher = Watcher(callback)
        fit(model, watcher, callback)
        differ = []
        for kernel in kernels(model):
            first, second = strategy.experimental_local_results(kernel.variable.value)
            if first.numpy().tobytes() != second.numpy().tobytes():
                differ.append(kernel.name)
        masked = {name: int((~mask).sum()) for name, mask in masks_of(model).items()}
        finite = all(np.isfinite(weight.numpy()).all() for weight in model.weights)
        done = [watcher.seen.wrong, differ, masked, pruned(model), finite, watcher.step]
        found[f"{row.name}/{steps}/{policy}"] = done
json.dump(found, open(sys.argv[2], "w"))
"""


def mirrored(tmp_path, ways, names):
    """Train all rows on two replicas, in a process of its own, since devices are configured first."""
    given = [json.dumps(ways), str(tmp_path / "found.json"), json.dumps(names)]
    command = [sys.executable, "-W", "ignore", "-c", MIRRORED, *given]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == len(names) * len(ways)
    for way, (wrong, differ, masked, zeros, finite, steps) in found.items():
        row, model = BY_NAME[way.split("/")[0]], ready()
        assert (wrong, differ, finite, steps) == ([], [], True, 12), way
        assert all(masked[name] <= zeros[name] for name in masked), way
        assert row.grows or masked == zeros, way
        if row.split == "total":
            assert {"total": sum(masked.values())} == promised(row, model, 12)
        elif row.split != "block":
            assert masked == promised(row, model, 12)


def test_two_replicas(tmp_path):
    mirrored(tmp_path, [(1, "float32")], ["GraNet"])


@pytest.mark.slow
def test_two_replicas_in_more_ways(tmp_path):
    ways = [(1, "float32"), (4, "float32"), (1, "mixed_float16"), (2, "mixed_float16")]
    mirrored(tmp_path, ways, [row.name for row in ROWS])
