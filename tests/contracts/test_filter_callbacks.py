"""What every callback that prunes filters promises. A new callback adds one row to ROWS and inherits all of it.

Each setting of Keras is tested with a sample of the rows; with the others it is `slow`.
"""

import csv
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from networks import (
    chain,
    compiled,
    images,
    outputs,
    outputs_without_tfprune,
    randomize,
    relative_difference,
    residual,
    same,
    weights_of,
)
from networks import zero_filters as zero_filters_of

import tfprune
from tfprune import Ranking
from tfprune.callbacks import FPGM, FilterPruning, SoftFilterPruning
from tfprune.criteria import BatchNormGamma, GroupNorm
from tfprune.granularity import Channel
from tfprune.schedules import Exponential, Polynomial


@dataclass(frozen=True)
class Row:
    """One variant of a callback.

    Attributes:
        name: What the test's id shows.
        make: Makes the callback; called anew for every fit.
        removed: How many of C filters it removes.
        hard: Whether removed filters stay at zero in every training step.
        together: Whether the layers are ranked together, so that only the number over all of them is promised.
        normalized: Whether every convolution needs a BatchNormalization.
        tied: Whether layers that share channels lose the same ones, so that `shrink` can remove all of them, exactly.
            Otherwise BatchNormalization is left alone, and what it still emits is folded into later biases.
    """

    name: str
    make: Callable[[], keras.callbacks.Callback]
    removed: Callable[[int], int]
    hard: bool
    tied: bool = True
    together: bool = False
    normalized: bool = False


ROWS = [
    Row("SoftFilterPruning", lambda: SoftFilterPruning(0.4), lambda c: math.floor(c * 0.4), hard=False),
    Row(
        "SoftFilterPruning-every-2-layer",
        lambda: SoftFilterPruning(0.4, frequency=2, scope="layer"),
        lambda c: math.floor(c * 0.4),
        hard=False,
        tied=False,
    ),
    Row("FPGM", lambda: FPGM(0.4), lambda c: math.floor(c * 0.4), hard=True),
    Row(
        "FPGM-mix",
        lambda: FPGM(0.3, norm_ratio=0.2),
        lambda c: math.floor(c * 0.3) + math.floor(c * 0.2),
        hard=True,
    ),
    Row("FPGM-soft", lambda: FPGM(0.4, mode="soft"), lambda c: math.floor(c * 0.4), hard=False),
    Row("FPGM-layer", lambda: FPGM(0.4, scope="layer"), lambda c: math.floor(c * 0.4), hard=True, tied=False),
    Row(
        "FPGM-gradual",
        lambda: FPGM(Polynomial(0.4, initial=0.2, end=1, frequency=1, unit="epochs")),
        lambda c: math.floor(c * 0.4),
        hard=True,
    ),
    # Where early stopping ends the training after 2 of 9 epochs, 0.386 are reached, which are as many of 4 and 6.
    Row(
        "SoftFilterPruning-asymptotic",
        lambda: SoftFilterPruning(Exponential(0.4, initial=0.2, frequency=1, unit="epochs")),
        lambda c: math.floor(c * 0.4),
        hard=False,
    ),
    Row(
        "global-gammas",
        lambda: FilterPruning(0.4, BatchNormGamma(), ranking=Ranking("global", normalize="none"), mode="hard"),
        lambda c: math.floor(c * 0.4),
        hard=True,
        together=True,
        normalized=True,
    ),
    Row(
        "even-widths",
        lambda: FilterPruning(0.5, GroupNorm(), granularity=Channel(round_to=2), mode="hard"),
        lambda c: c - 2 * math.ceil((c - math.floor(c * 0.5)) / 2),
        hard=True,
    ),
]
KERNELS = ("stem", "branch", "head")


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01, global_clipnorm=1.0)


IDS = [row.name for row in ROWS]


# Rows that differ from one of the others in a mode or a scope alone are slow where a whole fit is watched.
ALIKE = ("SoftFilterPruning", "FPGM", "FPGM-soft", "FPGM-layer")


@pytest.fixture(
    scope="module",
    params=[pytest.param(row, marks=pytest.mark.slow if row.name in ALIKE else (), id=row.name) for row in ROWS],
)
def row(request):
    return request.param


class Zeros(keras.callbacks.Callback):
    """Placed first: remembers what is zero when an epoch starts, until something is, and what of it is not zero later.

    In hard mode that is the first epoch, in soft mode the one after the first pruning.
    """

    def __init__(self):
        super().__init__()
        self.start = None
        self.batches = 0
        self.first_epoch = None
        self.revived = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.first_epoch is None and batch == 0:
            self.start = {v.path: v.numpy() == 0 for v in self.model.trainable_variables}
            self.first_epoch = self.epoch if any(zero.any() for zero in self.start.values()) else None

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        for variable in self.model.trainable_variables:
            if (variable.numpy()[self.start[variable.path]] != 0).any():
                self.revived.append((batch, variable.path))

    def nonzero_slots(self):
        """The optimizer's slots that are not zero where a weight was zero from the start on; and how many fit."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        found, bad = 0, []
        for path, zero in self.start.items():
            slots = [v for v in optimizer.variables if v.name.startswith(path.replace("/", "_") + "_")]
            found += len(slots)
            bad += [slot.name for slot in slots if (slot.numpy()[zero] != 0).any()]
        return found, bad


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Run:
    """One fit of the residual network, and what was measured after it."""

    model: keras.Model
    callback: keras.callbacks.Callback
    watcher: Zeros
    history: dict[str, list[float]]
    logged: list[dict[str, str]]
    evaluated: dict[str, float]
    small: keras.Model


@pytest.fixture(scope="module")
def run(row, tmp_path_factory) -> Run:
    keras.utils.set_random_seed(1)
    model = compiled(randomize(residual(normalized=row.normalized)), momentum(), jit_compile=False)
    path = tmp_path_factory.mktemp("run") / "log.csv"
    watcher, callback = Zeros(), row.make()
    history = model.fit(
        *images(32),
        batch_size=8,
        epochs=3,
        validation_data=images(16, seed=9),
        callbacks=[watcher, callback, keras.callbacks.CSVLogger(path)],
        verbose=0,
    ).history
    evaluated = model.evaluate(*images(16, seed=9), return_dict=True, verbose=0)
    with path.open() as file:
        logged = list(csv.DictReader(file))
    return Run(model, callback, watcher, history, logged, evaluated, shrunken(row, model))


def shrunken(row, model):
    with warnings.catch_warnings():
        if not row.tied:
            warnings.filterwarnings("ignore", message="The smaller model is not exactly the masked one")
        return tfprune.shrink(model)


def allowed(row, tolerance=1e-5):
    return tolerance if row.tied else 0.1


def fit_chain(row, optimizer="sgd", model=None, before=(), after=(), epochs=2, **options):
    """Fit the Sequential network with a new callback of the row, between other callbacks; return the model."""
    keras.utils.set_random_seed(2)
    model = model or compiled(
        randomize(chain(normalized=row.normalized)), optimizer, **{"jit_compile": False, **options}
    )
    callbacks = [*before, row.make(), *after]
    model.fit(*images(32), batch_size=4, epochs=epochs, callbacks=callbacks, verbose=0)
    return model


def assert_counts(row, model, names):
    """Exactly as many filters of each layer are zero as the row promises, or of all layers together."""
    layers = [model.get_layer(name) for name in names]
    found = [len(zero_filters_of(layer)) for layer in layers]
    if row.together:
        assert sum(found) == row.removed(sum(layer.filters for layer in layers)) > 0
    else:
        assert found == [row.removed(layer.filters) for layer in layers]
        assert min(found) > 0


def assert_chain_pruned(row, model):
    assert_counts(row, model, ("first", "second"))
    assert all(np.isfinite(weight).all() for weight in weights_of(model))
    assert zero_filters_of(model.get_layer("classes")) == []


@pytest.mark.sampled(4)
def test_exactly_the_promised_number_of_filters_is_zero(row, run):
    assert_counts(row, run.model, ("stem", "head") if row.together else KERNELS)


def test_classes_are_left_alone(run):
    assert zero_filters_of(run.model.get_layer("classes")) == []


def test_sparsity_is_logged_and_measured(row, run):
    kernels = [run.model.get_layer(name).kernel.numpy() for name in KERNELS]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
    assert run.history["sparsity"][-1] == zeros > 0
    assert [float(line["sparsity"]) for line in run.logged] == run.history["sparsity"]
    assert [float(line["pruned_filters"]) for line in run.logged] == run.history["pruned_filters"]


def test_last_validation_is_of_the_model_that_is_left(run):
    assert run.history["val_loss"][-1] == pytest.approx(run.evaluated["loss"], rel=1e-6)
    assert run.history["val_accuracy"][-1] == pytest.approx(run.evaluated["accuracy"], abs=1e-9)


def test_shrunken_model_computes_the_same(row, run):
    x, _ = images(16, seed=5)
    assert relative_difference(outputs(run.model, x), outputs(run.small, x)) < allowed(row)


def test_shrunken_model_is_as_narrow_as_promised(row, run):
    if row.tied:
        for name in KERNELS:
            layer = run.model.get_layer(name)
            gone = len(zero_filters_of(layer)) if row.together else row.removed(layer.filters)
            assert run.small.get_layer(name).filters == layer.filters - gone
        stem, branch = (zero_filters_of(run.model.get_layer(name)) for name in ("stem", "branch"))
        assert stem == branch
    assert run.small.count_params() < run.model.count_params()


def test_nothing_of_the_callback_stays_on_the_model(run):
    assert "apply" not in vars(run.model.optimizer)
    assert type(run.model.optimizer) is keras.optimizers.SGD


@pytest.mark.sampled(4)
def test_shrunken_model_keeps_compile_settings_and_trains(run):
    small = keras.models.clone_model(run.small)
    small.set_weights(run.small.get_weights())
    small.compile_from_config(run.small.get_compile_config())
    assert small.get_compile_config() == run.model.get_compile_config()
    assert small.optimizer.get_config() == run.model.optimizer.get_config()
    small.run_eagerly = True
    before = weights_of(small)
    logs = small.train_on_batch(*images(8), return_dict=True)
    assert set(logs) == {"loss", "accuracy"}
    assert np.isfinite(logs["loss"])
    assert not same(before, weights_of(small))


def test_hard_filters_are_zero_at_every_batch_end(row, run):
    assert run.watcher.batches == 12
    masked = sum(int(zero.sum()) for zero in run.watcher.start.values())
    assert masked > 0
    assert (run.watcher.first_epoch == 0) == row.hard
    if row.hard:
        assert run.watcher.revived == []
    else:
        assert run.watcher.revived != []


def test_hard_filters_gather_no_momentum(row, run):
    found, bad = run.watcher.nonzero_slots()
    assert found >= len(run.watcher.start)
    assert bool(bad) != row.hard


@pytest.mark.sampled(6)
def test_fitting_again_starts_from_the_same_choice(row, run):
    model = keras.models.clone_model(run.model)
    model.set_weights(run.model.get_weights())
    chosen = {name: zero_filters_of(run.model.get_layer(name)) for name in KERNELS}
    callback = row.make()
    callback.set_model(compiled(model, jit_compile=False))
    callback.set_params({"epochs": 1})
    callback.on_train_begin()
    assert {name: zero_filters_of(model.get_layer(name)) for name in KERNELS} == chosen
    callback.on_train_end()
    assert same(weights_of(model), weights_of(run.model))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_sequential_twice_with_the_same_seed_is_the_same_bit_for_bit(row):
    watcher = Zeros()
    first = fit_chain(row, momentum(), before=[watcher])
    second = fit_chain(row, momentum())
    assert_chain_pruned(row, first)
    assert same(weights_of(first), weights_of(second))
    if row.hard:
        assert watcher.revived == []
        found, bad = watcher.nonzero_slots()
        assert found >= len(watcher.start)
        assert bad == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_steps_per_execution_on_a_model_fitted_before_and_again_after(row):
    model = compiled(randomize(chain(normalized=row.normalized)), momentum(), jit_compile=False, steps_per_execution=4)
    model.fit(*images(32), batch_size=4, verbose=0)
    watcher, again = Zeros(), Zeros()
    fit_chain(row, model=model, before=[watcher])
    assert_chain_pruned(row, model)
    chosen = {name: zero_filters_of(model.get_layer(name)) for name in ("first", "second")}
    fit_chain(row, model=model, before=[again], epochs=1)
    assert_chain_pruned(row, model)
    for name, filters in chosen.items():
        path = model.get_layer(name).kernel.path
        assert np.flatnonzero(again.start[path].all(axis=(0, 1, 2))).tolist() == filters
    if row.hard:
        assert watcher.revived == again.revived == []
        assert {name: zero_filters_of(model.get_layer(name)) for name in chosen} == chosen


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_mixed_float16(row):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        watcher = Zeros()
        model = fit_chain(row, "adam", before=[watcher])
        assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
        assert_chain_pruned(row, model)
        x, _ = images(8)
        assert relative_difference(outputs(model, x), outputs(shrunken(row, model), x)) < allowed(row, 1e-2)
        if row.hard:
            assert watcher.revived == []
            assert watcher.nonzero_slots()[1] == []
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_use_ema(row):
    model = fit_chain(row, keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5))
    assert_chain_pruned(row, model)
    x, _ = images(8)
    assert relative_difference(outputs(model, x), outputs(shrunken(row, model), x)) < allowed(row)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_early_stopping_that_restores_the_best_weights(row, place):
    stop = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", min_delta=1e6, patience=1, restore_best_weights=True
    )
    model = fit_chain(row, epochs=9, **{place: [stop]})
    assert stop.stopped_epoch == 1
    assert_chain_pruned(row, model)
    if place == "before" or row.hard:
        gone = len(zero_filters_of(model.get_layer("second"))) if row.together else row.removed(6)
        assert shrunken(row, model).get_layer("second").filters == 6 - gone


def test_early_stopping_after_a_soft_callback_restores_weights_that_shrink():
    stop = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", min_delta=1e6, patience=1, restore_best_weights=True
    )
    model = fit_chain(ROWS[0], epochs=9, after=[stop])
    small = tfprune.shrink(model)
    assert small.get_layer("first").filters == 4 - ROWS[0].removed(4)
    x, _ = images(8)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_interrupted_fit_leaves_a_model_that_fits_again(row):
    model = compiled(randomize(chain(normalized=row.normalized)), momentum(), jit_compile=False)
    with pytest.raises(KeyboardInterrupt):
        fit_chain(row, model=model, after=[Interrupt()])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_chain(row, model=model, epochs=1)
    assert ["of a fit that was interrupted" in str(warning.message) for warning in caught] == [True] * row.hard
    assert_chain_pruned(row, model)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_jit_compile(row):
    watcher = Zeros()
    model = fit_chain(row, momentum(), before=[watcher], epochs=1, jit_compile=True)
    assert_chain_pruned(row, model)
    if row.hard:
        assert watcher.revived == []


@pytest.mark.slow
def test_checkpoints_and_shrunken_models_load_where_tfprune_is_not_installed(tmp_path):
    x, _ = images(4)
    expected = {}
    for index, row in enumerate(ROWS):
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / f"checkpoint{index}.keras")
        model = fit_chain(row, "adam", after=[checkpoint], epochs=1)
        small = shrunken(row, model)
        small.save(tmp_path / f"small{index}.keras")
        expected[f"small{index}"] = outputs(small, x)[0]
        expected[f"checkpoint{index}"] = outputs(keras.models.load_model(tmp_path / f"checkpoint{index}.keras"), x)[0]
        assert relative_difference(outputs(model, x), [expected[f"small{index}"]]) < allowed(row)
    found = outputs_without_tfprune(tmp_path, expected, x)
    for name, value in expected.items():
        assert relative_difference([value], found[name]) < 1e-5
