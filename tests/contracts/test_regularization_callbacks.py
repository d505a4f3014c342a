"""What every callback that pushes structures to zero promises. A new one adds a row to ROWS and inherits all of it.

Every second channel of the networks here starts small (see `uneven`), and the strength of a row is such that exactly
these channels die. Each setting of Keras is tested with one row in turn; with all other rows it is `slow`.
"""

import csv
import functools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import compiled, images, outputs, randomize, relative_difference, residual, same, weights_of

import tfprune
from tfprune.callbacks import (
    FPGM,
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    MorphNet,
    NetworkSlimming,
    RigL,
    SparseStructureSelection,
)
from tfprune.callbacks.penalties.base import SparsityRegularization
from tfprune.graph import channel_groups
from tfprune.layers import with_scaling_factors
from tfprune.schedules import Constant, Cosine

L = keras.layers


SMALL = 0.02
OPTIMIZERS = ["SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Ftrl", "Lion"]
OPTIMIZERS += ["Lamb", "Muon", "ScheduleFreeAdamW"]


OTHER_OPTIMIZERS = {
    "Adafactor",  # divides by zero where all gradients of a channel are zero, with or without a callback
    "MultiOptimizer",  # has no learning rate, and is refused
    "LossScaleOptimizer",  # as in mixed precision
    "Optimizer",
}


def mlp():
    """Two hidden layers with BatchNormalization: nothing is tied."""
    layers = [keras.Input((6,))]
    for index in range(2):
        layers += [L.Dense(6, use_bias=False, name=f"dense{index}")]
        layers += [L.BatchNormalization(momentum=0.9, name=f"bn{index}"), L.ReLU()]
    return keras.Sequential([*layers, L.Dense(3, name="classes")])


def weighted(norms, sizes):
    return (np.sqrt(sizes) * norms).sum()


@dataclass(frozen=True)
class Row:
    """One variant of a callback.

    Attributes:
        name: What the test's id shows.
        make: Makes the callback from a strength; called anew for every fit.
        strength: One at which the small channels of `uneven` die within two epochs, and no others.
        too_high: One at which everything dies that may, at a learning rate of 0.05.
        proximal: Whether parts become zero in the training step, with any optimizer, and not only when training ends.
        stays: Whether a part that is zero has no gradient, so that it stays zero.
        penalty: The logged penalty of one structure, without the strength, from the norms of its parts and their
            sizes; None if weights alone do not tell.
        network: Makes the network for all tests of this row but one.
        insert: Puts into a network what the callback trains.
        missing: What an error says of a model with nothing to prune.
        halved: Which of the two groups of `residual` lose their small channels: tied by an addition, and not.
        ratio: Whether a fixed ratio dies, whatever the strength.
        neutral: Whether a strength of zero is no callback.
        accumulates: Whether gradients may be accumulated over several steps.
        schedules: Whether the strength may be a schedule.
        resumes: Whether all that it remembers travels with the weights and the optimizer.
        epochs: The shortest fit that it can be used in.
    """

    name: str
    make: Callable[[float], SparsityRegularization]
    strength: float
    too_high: float = 1e3
    proximal: bool = True
    stays: bool = True
    penalty: Callable[[np.ndarray, np.ndarray], float] | None = weighted
    network: Callable[[], keras.Model] = mlp
    insert: Callable[[keras.Model], keras.Model] = lambda model: model
    missing: str = "nothing to prune"
    halved: tuple[int, ...] = (0, 1)
    ratio: bool = False
    neutral: bool = True
    accumulates: bool = True
    schedules: bool = True
    resumes: bool = True
    epochs: int = 1

    def start(self, network=None):
        """A network, that of the row if none is given, in which every second channel is small."""
        return uneven(self.insert(randomize(network or self.network())))


def group_norm_penalty(norms, sizes):
    return (2 ** (4 * (norms.max() - norms) / (norms.max() - norms.min())) * norms**2).sum() / 2


ROWS = [
    Row("GroupLasso", lambda s: GroupLasso(s), 0.05),
    Row(
        "GroupLasso-unweighted",
        lambda s: GroupLasso(s, size_weighting=False),
        0.2,
        penalty=lambda norms, sizes: norms.sum(),
    ),
    Row("GroupLasso-filter", lambda s: GroupLasso(s, parts="filter"), 0.05),
    Row("GroupLasso-channel", lambda s: GroupLasso(s, parts="channel"), 0.05, stays=False),
    Row("GroupLasso-shape", lambda s: GroupLasso(s, parts="shape"), 0.05, stays=False, halved=()),
    Row(
        "GroupLasso-subgradient",
        lambda s: GroupLasso(s, update="subgradient", threshold=0.05),
        0.05,
        too_high=0.2,
        proximal=False,
    ),
    Row(
        "GroupNorm",
        lambda s: GroupNormRegularization(s, threshold=0.05),
        0.05,
        too_high=1.0,
        proximal=False,
        penalty=group_norm_penalty,
    ),
    Row(
        "Growing",
        lambda s: GrowingRegularization(s, frequency=1, limit=10.0, threshold=0.05),
        0.05,
        too_high=1.0,
        proximal=False,
        penalty=None,
        schedules=False,
        resumes=False,
    ),
    Row(
        "MorphNet",
        lambda s: MorphNet(s, threshold=0.05),
        0.02,
        too_high=6.0,
        proximal=False,
        penalty=None,
        halved=(0,),
    ),
    Row(
        "NetworkSlimming",
        lambda s: NetworkSlimming(s, 0.5, prune_at=2),
        0.01,
        proximal=False,
        penalty=lambda norms, sizes: norms.sum(),
        halved=(0,),
        ratio=True,
        neutral=False,
        epochs=2,
    ),
    Row(
        "SparseStructureSelection",
        lambda s: SparseStructureSelection(s),
        0.005,
        stays=False,
        penalty=lambda norms, sizes: norms.sum(),
        insert=functools.partial(with_scaling_factors, where="channels"),
        missing="has no ScalingFactor layer",
        halved=(1,),
        neutral=False,
        accumulates=False,
        resumes=False,
    ),
]
BY_NAME = {row.name: row for row in ROWS}
IDS = [*BY_NAME]


# Rows that differ from one of the others in the parts alone are slow.
ALIKE = ("GroupLasso-unweighted", "GroupLasso-filter", "GroupLasso-shape")
CASES = [pytest.param(row, marks=pytest.mark.slow if row.name in ALIKE else (), id=row.name) for row in ROWS]


@pytest.fixture(scope="module", params=CASES)
def row(request):
    return request.param


def uneven(model):
    """Make every second channel of each group small, in all that makes, carries and reads it; return the model."""
    for group in channel_groups(model).free:
        scale = np.where(np.arange(group.size) % 2, SMALL, 1.0)
        for member in group.with_role("producer", "affine", "consumer"):
            factors = np.ones(member.variable.shape[member.axis])
            factors[member.positions] = scale[member.channels]
            shape = [1] * len(member.variable.shape)
            shape[member.axis] = -1
            member.variable.assign(member.variable.numpy() * factors.reshape(shape))
    return model


def widths(model):
    return [group.size for group in channel_groups(model).free]


def data(model, count=64, seed=0):
    return images(count, seed=seed, shape=tuple(model.inputs[0].shape[1:]))


def fit(
    row,
    optimizer=None,
    *,
    strength=None,
    callback=None,
    model=None,
    others=(),
    epochs=2,
    repeats=1,
    batch_size=4,
    initial_epoch=0,
    count=64,
    **options,
):
    """Fit the network of a row, in batches of 4, in order; each batch may come several times. Return model, history."""
    keras.utils.set_random_seed(1)
    optimizer = optimizer or keras.optimizers.SGD(0.05)
    model = model or compiled(row.start(), optimizer, **{"jit_compile": False, **options})
    x, y = (np.concatenate([a.reshape(-1, 4, *a.shape[1:])] * repeats, axis=1) for a in data(model, count))
    x, y = x.reshape(-1, *x.shape[2:]), y.reshape(-1)
    callbacks = [callback or row.make(row.strength if strength is None else strength), *others]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has left .* as few as min_channels allows")
        history = model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        ).history
    return model, history


def assert_small_channels_are_removed(model, tolerance=1e-5):
    """Exactly the small channels are dead, and removing them changes nothing."""
    small = tfprune.shrink(model)
    assert widths(small) == [(size + 1) // 2 for size in widths(model)]
    x, _ = data(model, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < tolerance
    assert all(np.isfinite(weight).all() for weight in weights_of(model))


def assert_close(first, second):
    for one, other in zip(first, second, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def trained(model):
    return [variable.numpy() for variable in model.trainable_variables]


def norms_and_sizes(structure, weights):
    """The norm and the number of weights of every part, by a loop over slices."""
    squares, sizes = np.zeros(structure.size), np.zeros(structure.size, int)
    for one in structure.slices:
        value = weights[one.variable.path].astype("float64")
        moved = np.moveaxis(value, one.axes, range(len(one.axes)))
        for place in np.ndindex(one.parts.shape):
            if one.parts[place] >= 0:
                squares[one.parts[place]] += (moved[place] ** 2).sum()
                sizes[one.parts[place]] += moved[place].size
    return np.sqrt(squares), sizes


class Watch(keras.callbacks.Callback):
    """Placed last: remembers the weights of every epoch, and which parts were zero after every step."""

    def __init__(self, callback):
        super().__init__()
        self.callback = callback
        self.epochs = []
        self.zero = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({v.path: v.numpy() for v in self.model.trainable_variables})

    def on_train_batch_end(self, batch, logs=None):
        weights = {v.path: v.numpy() for v in self.model.trainable_variables}
        self.zero.append([norms_and_sizes(s, weights)[0] == 0 for s in self.callback.structures])


@dataclass(frozen=True)
class Run:
    """One fit with the settings that others are compared with, and what was measured."""

    model: keras.Model
    callback: SparsityRegularization
    watch: Watch
    history: dict[str, list[float]]
    logged: list[dict[str, str]]


@functools.cache
def run_of(row):
    callback = row.make(row.strength)
    watch = Watch(callback)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        model, history = fit(row, callback=callback, others=[watch, keras.callbacks.CSVLogger(path)])
        with path.open() as file:
            return Run(model, callback, watch, history, list(csv.DictReader(file)))


@pytest.fixture(scope="module")
def run(row):
    return run_of(row)


def reference(row):
    """The weights after the plain fit of a row, those that are trained first; and its history."""
    model = run_of(row).model
    return trained(model) + [variable.numpy() for variable in model.non_trainable_variables], run_of(row).history


@pytest.mark.sampled(4)
def test_exactly_the_weak_channels_die_and_shrink_removes_them(run):
    assert_small_channels_are_removed(run.model)


def test_proximal_zeros_are_exact_in_the_step(row, run):
    zeros = np.array([sum(int(parts.sum()) for parts in step) for step in run.watch.zero])
    assert len(zeros) == 32
    assert (zeros[-1] > 0) == row.proximal
    if row.proximal and row.stays:
        for before, after in zip(run.watch.zero, run.watch.zero[1:], strict=False):
            assert all((old <= new).all() for old, new in zip(before, after, strict=True))


def test_logs_are_what_numpy_finds(row, run):
    for epoch, weights in enumerate(run.watch.epochs):
        penalty, dead = 0.0, 0
        for structure in run.callback.structures:
            norms, sizes = norms_and_sizes(structure, weights)
            assert structure.part_sizes.tolist() == sizes.tolist()
            penalty += row.penalty(norms, sizes) if row.penalty else 0.0
            dead += min(int((norms <= run.callback.threshold).sum()), structure.size - run.callback.min_channels)
        assert run.history["channels_below_threshold"][epoch] == dead > 0
        if row.penalty:
            assert run.history["regularization_loss"][epoch] == pytest.approx(row.strength * penalty, rel=1e-4)
        assert run.history["regularization_loss"][epoch] > 0
    for name in ("channels_below_threshold", "regularization_loss"):
        assert [float(line[name]) for line in run.logged] == pytest.approx(run.history[name])


def test_the_model_is_plain_afterwards(run, tmp_path):
    assert "apply" not in vars(run.model.optimizer)
    assert type(run.model.optimizer) is keras.optimizers.SGD
    run.model.save(tmp_path / "model.keras")
    x, _ = data(run.model)
    assert same(outputs(run.model, x), outputs(keras.models.load_model(tmp_path / "model.keras"), x))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
def test_two_runs_are_identical(row):
    again, history = fit(row)
    assert same(trained(again), reference(row)[0][: len(trained(again))])
    assert history == reference(row)[1]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", [row for row in ROWS if row.neutral], ids=lambda row: row.name)
def test_strength_zero_is_no_callback(row):
    plain = compiled(row.start(), keras.optimizers.SGD(0.05), jit_compile=False)
    keras.utils.set_random_seed(1)
    plain.fit(*data(plain), batch_size=4, epochs=1, shuffle=False, verbose=0)
    model, history = fit(row, strength=0.0, epochs=1)
    assert same(weights_of(model), weights_of(plain))
    assert history["regularization_loss"] == [0.0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", [row for row in ROWS if not row.ratio], ids=lambda row: row.name)
def test_too_high_a_strength_leaves_min_channels_and_warns(row):
    model = compiled(row.start(), keras.optimizers.SGD(0.05), jit_compile=False)
    callback = row.make(row.too_high)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(*data(model), batch_size=4, epochs=1 if row.proximal else 4, callbacks=[callback], verbose=0)
    messages = sorted(str(warning.message) for warning in caught if "has left" in str(warning.message))
    assert len(messages) == len(callback.structures)
    for structure, message in zip(sorted(callback.structures, key=lambda s: s.name), messages, strict=True):
        assert f"has left 1 of {structure.size} parts of '{structure.name}'" in message
    assert max(widths(tfprune.shrink(model))) == 1
    assert all(np.isfinite(weight).all() for weight in weights_of(model))
    for structure in callback.structures:
        norms, _ = norms_and_sizes(structure, {v.path: v.numpy() for v in model.trainable_variables})
        assert (norms > 0).sum() == 1


@pytest.mark.parametrize("strength", [-1e-9, float("nan"), float("inf"), True, "0.1", None])
def test_a_strength_that_is_none_is_refused(row, strength):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        row.make(strength)


def test_a_model_with_nothing_to_prune_and_one_that_is_not_compiled_are_refused(row):
    callback = row.make(row.strength)
    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    callback.set_model(model)
    with pytest.raises(ValueError, match="not compiled"):
        callback.on_train_begin()
    with pytest.raises(ValueError, match=row.missing):
        fit(row, callback=callback, model=compiled(model))


SETTINGS = {
    "steps_per_execution": {"steps_per_execution": 4},
    "jit_compile": {"jit_compile": True},
    "run_eagerly": {"run_eagerly": True},
    "both": {"steps_per_execution": 4, "jit_compile": True},
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("setting", [*SETTINGS])
def test_a_setting_of_keras_changes_nothing(setting, row):
    model, history = fit(row, **SETTINGS[setting])
    weights, expected = reference(row)
    assert_close(trained(model) + [variable.numpy() for variable in model.non_trainable_variables], weights)
    assert history["channels_below_threshold"] == expected["channels_below_threshold"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("steps", [2, 3])
def test_accumulated_gradients_pull_as_one(steps, row):
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps)
    if not row.accumulates:
        with pytest.raises(ValueError, match="accumulates gradients over several"):
            fit(row, optimizer)
        return
    model, _ = fit(row, optimizer, repeats=steps)
    assert_close(trained(model), reference(row)[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("factor", [8.0, 256.0])
def test_a_scaled_loss_is_pulled_as_much(factor, row):
    model, _ = fit(row, keras.optimizers.SGD(0.05, loss_scale_factor=factor))
    assert_close(trained(model), reference(row)[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, row):
    keras.config.set_dtype_policy(policy)
    try:
        model, _ = fit(row)
        # bfloat16 has 8 bits, and factors that are folded into weights are rounded with them.
        assert_small_channels_are_removed(model, tolerance=1e-2 if policy == "mixed_float16" else 2e-2)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("every", [None, 3])
def test_use_ema(every, row):
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=every)
    assert_small_channels_are_removed(fit(row, optimizer)[0])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS])
def test_every_optimizer(optimizer, row):
    strength = row.too_high if row.proximal else row.strength
    # One step under the highest strength tells as much as many; eager steps trace nothing.
    options = {"count": 8, "epochs": row.epochs, "run_eagerly": True}
    model, _ = fit(row, getattr(keras.optimizers, optimizer)(0.05), strength=strength, **options)
    assert all(np.isfinite(weight).all() for weight in weights_of(model))
    small = tfprune.shrink(model) if row.proximal else model
    if row.proximal:
        assert max(widths(small)) == 1
    x, _ = data(model)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


def test_all_optimizers_of_keras_are_listed():
    found = {
        name
        for name, each in vars(keras.optimizers).items()
        if isinstance(each, type) and issubclass(each, keras.optimizers.Optimizer)
    }
    assert found - OTHER_OPTIMIZERS == set(OPTIMIZERS)


def test_an_optimizer_without_a_learning_rate_is_refused():
    model = compiled(mlp(), keras.optimizers.MultiOptimizer(lambda variable: keras.optimizers.SGD()))
    with pytest.raises(ValueError, match="MultiOptimizer has none of its own"):
        fit(ROWS[0], model=model)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("before", ["fitted", "frozen layer"])
def test_a_model_that_was_fitted_before_and_one_with_a_layer_that_does_not_train(before, row):
    model = compiled(row.start(), keras.optimizers.SGD(0.05), jit_compile=False)
    if before == "frozen layer":
        model.layers[0].trainable = False
        compiled(model, keras.optimizers.SGD(0.05), jit_compile=False)
        kernel = model.layers[0].kernel.numpy()
        fit(row, model=model, strength=1e-5, epochs=row.epochs)
        after = model.layers[0].kernel.numpy()
        dead = (after == 0).all(axis=0)  # made zero when training ended, where that changes nothing
        assert np.array_equal(after[:, ~dead], kernel[:, ~dead])
        assert not dead[::2].any()
    else:
        keras.utils.set_random_seed(1)
        model.fit(*data(model), batch_size=4, verbose=0, shuffle=False)
        model, _ = fit(row, model=model)
        assert_small_channels_are_removed(model)


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("other", ["Interrupt"])
def test_an_interrupted_fit_is_released_by_the_next(other, row):
    model = compiled(row.start(), keras.optimizers.SGD(0.05), jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        fit(row, model=model, others=[Interrupt()])
    with pytest.warns(UserWarning, match="of a fit that was interrupted"):
        fit(row, model=model)
    assert "apply" not in vars(model.optimizer)
    assert_small_channels_are_removed(model)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("other", ["FPGM", "RigL"])
def test_another_callback_of_tfprune_in_the_same_fit(other, row):
    model = compiled(row.start(), keras.optimizers.SGD(0.05), jit_compile=False)
    if other == "FPGM":
        fit(row, model=model, others=[FPGM(0.34)])
        assert_small_channels_are_removed(model)
    else:
        _, history = fit(row, model=model, others=[RigL(0.5, drop=Cosine(0.3, frequency=4), seed=1)])
        kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, L.Dense)]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        assert zeros >= 0.5 * sum(kernel.size for kernel in kernels) - len(kernels)
        assert history["sparsity"] == pytest.approx([0.5, 0.5], abs=0.03)
        assert history["channels_below_threshold"][-1] > 0
    assert "apply" not in vars(model.optimizer)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("schedule", [Constant(0.01, unit="epochs"), Cosine(0.01), Cosine(0.5, unit="epochs")])
def test_a_schedule_of_the_strength(schedule, row):
    if not row.schedules:
        with pytest.raises(ValueError, match="delta must be a number"):
            row.make(schedule)
        return
    strengths = []

    class Strengths(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            strengths.append(callback._strength_now())

    callback = row.make(schedule)
    fit(row, callback=callback, others=[Strengths()])
    ended = schedule.with_end(2 if schedule.unit == "epochs" else 32)
    times = [step // 16 if schedule.unit == "epochs" else step for step in range(32)]
    assert strengths == pytest.approx([ended.value(time) for time in times])


MIRRORED = """
import json, os, sys, warnings
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path[:0] = sys.argv[1:3]
import test_regularization_callbacks as contract
from networks import compiled
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
warnings.simplefilter("ignore")
found = {}
for name in sys.argv[3:]:
    row = contract.BY_NAME[name]
    with strategy.scope():
        model = row.start()
        compiled(model, keras.optimizers.SGD(0.05), jit_compile=False)
    contract.fit(row, model=model, repeats=2, batch_size=8)
    both = [[copy.numpy() for copy in v.value.values] for v in model.trainable_variables]
    one = contract.trained(contract.fit(row)[0])
    found[name] = {
        "between replicas": max(float(np.abs(a - b).max()) for a, b in both),
        "to one replica": max(float(np.abs(a[0] - b).max()) for a, b in zip(both, one)),
        "zeros": all(((a[0] == 0) == (b == 0)).all() for a, b in zip(both, one)),
    }
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", [("GroupLasso-filter",), IDS], ids=["one", "all"])
def test_two_replicas_are_pulled_as_one(names):
    here = Path(__file__).parent
    command = [sys.executable, "-c", MIRRORED, str(here), str(here.parent), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, differences in json.loads(done.stdout.splitlines()[-1]).items():
        assert differences["between replicas"] == 0, name
        assert differences["to one replica"] < 1e-5, name
        assert differences["zeros"], name


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", CASES)
def test_conv_channels_tied_by_an_addition_and_others(row):
    model = compiled(row.start(residual()), keras.optimizers.SGD(0.02), jit_compile=False)
    fit(row, model=model)
    small = tfprune.shrink(model)
    assert all(widths(small)[index] <= (widths(model)[index] + 1) // 2 for index in row.halved)
    x, _ = data(model, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


class Stop(keras.callbacks.Callback):
    """Ends a fit in the middle of its third epoch as a crash does, and keeps what was there when that began."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if epoch == 2:
            self.kept = [v.numpy() for v in [*self.model.variables, *self.model.optimizer.variables]]

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 3):
            raise KeyboardInterrupt


def resumed(row, others, kept=None):
    """A model that is made anew, after the rest of four epochs."""
    model = compiled(row.start(), keras.optimizers.SGD(0.05, momentum=0.5), jit_compile=False)
    if kept is not None:
        model.optimizer.build(model.trainable_variables)
        for variable, value in zip([*model.variables, *model.optimizer.variables], kept, strict=True):
            variable.assign(value)
    options = {"initial_epoch": 2} if kept is not None else {}
    return fit(row, model=model, others=others, epochs=4, count=32, **options)[0]


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=pytest.mark.slow if i else ()) for i, row in enumerate(ROWS)]
)
def test_a_fit_that_is_resumed_ends_with_the_same_weights(row, tmp_path):
    stop = Stop()
    with pytest.raises(KeyboardInterrupt):
        resumed(row, [keras.callbacks.BackupAndRestore(tmp_path), stop])
    found = resumed(row, [keras.callbacks.BackupAndRestore(tmp_path)])
    whole = resumed(row, [])
    if row.resumes:
        assert_close(weights_of(found), weights_of(whole))
    else:  # what it remembers starts at zero once more
        assert_close(weights_of(found), weights_of(resumed(row, [], stop.kept)))
        assert relative_difference(weights_of(whole), weights_of(found)) > 1e-4
