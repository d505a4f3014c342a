"""Training that is killed, interrupted, stopped early, saved and loaded, or shared with other callbacks."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from networks import zero_filters
from sparse_rows import (
    BY_NAME,
    FEW,
    ROWS,
    STEPS,
    Watcher,
    data,
    fit,
    masks_of,
    network,
    promised,
    pruned,
    ready,
    same_arrays,
    state_of,
    watch,
)

from tfprune.callbacks import FPGM, GraNet, MagnitudePruning, RigL
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant, Cosine, Polynomial

EARLY_END = "ignore:.* reaches its sparsity at:UserWarning"
# Each fit starts the next one in the middle of an epoch, so that one signal kills them all.
KILLED = """
import json, os, signal, sys
import keras
from sparse_rows import BY_NAME, fit, ready

class GoOn(keras.callbacks.Callback):
    def __init__(self, index, epoch):
        super().__init__()
        self.index, self.kill_in, self.epoch = index, epoch, None
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.kill_in and batch == 1:
            train(self.index + 1)

def train(index):
    if index == len(jobs):
        os.kill(os.getpid(), signal.SIGKILL)
    name, place, epoch, folder = jobs[index]
    keras.utils.set_random_seed(1)
    backup = keras.callbacks.BackupAndRestore(folder)
    callbacks = [BY_NAME[name].make(3)]
    callbacks.insert(0 if place == "before" else 1, backup)
    fit(ready(), *callbacks, GoOn(index, epoch))

jobs = json.loads(sys.argv[1])
train(0)
"""


def kill_and_resume(tmp_path, ways):
    """Kill fits in the middle of an epoch, go on with them here, and compare with fits that were never interrupted."""
    jobs = [[name, place, epoch, str(tmp_path / str(index))] for index, (name, place, epoch) in enumerate(ways)]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, json.dumps(jobs)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr[-3000:]
    whole = {}
    for name, place, epoch, folder in jobs:
        row = BY_NAME[name]
        if name not in whole:
            keras.utils.set_random_seed(1)
            whole[name] = ready()
            fit(whole[name], row.make(3))
        keras.utils.set_random_seed(2)  # everything that matters comes from the backup
        model, callback = ready(), row.make(3)
        epochs = []
        backup = keras.callbacks.BackupAndRestore(folder)
        note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs, epochs=epochs: epochs.append(epoch))
        watcher = Watcher(callback)
        fit(model, watcher, *([backup, callback] if place == "before" else [callback, backup]), note)
        assert epochs == list(range(epoch, 3)), (name, place)
        assert watcher.seen.wrong == []
        assert state_of(model) == state_of(whole[name]), (name, place)
        assert same_arrays(masks_of(model), masks_of(whole[name]))


@pytest.mark.slow
def test_a_killed_fit_goes_on_as_if_nothing_had_happened(tmp_path):
    ways = [
        ("MagnitudePruning", "before", 1),
        ("SET-sign", "after", 2),
        ("RigL", "before", 2),
        ("GraNet-dense", "after", 1),
    ]
    kill_and_resume(tmp_path, ways)


@pytest.mark.slow
def test_every_killed_fit_goes_on_as_if_nothing_had_happened(tmp_path):
    places = [("before", 1), ("after", 1), ("before", 2), ("after", 2)]
    kill_and_resume(tmp_path, [(row.name, *place) for row in ROWS for place in places])


@pytest.mark.sampled(1)
@pytest.mark.filterwarnings(EARLY_END)
@pytest.mark.parametrize("row", FEW, ids=lambda row: row.name)
def test_saving_and_loading_in_between_changes_nothing(row, tmp_path):
    def start():
        keras.utils.set_random_seed(1)
        return ready(keras.optimizers.Adam(0.01, weight_decay=0.01))

    whole = start()
    fit(whole, row.make(3), epochs=3)
    part = start()
    fit(part, row.make(3), epochs=2)
    part.save(tmp_path / "part.keras")
    loaded = keras.models.load_model(tmp_path / "part.keras")
    assert state_of(loaded) == state_of(part)
    loaded.jit_compile = False
    fit(loaded, row.make(3), initial_epoch=2, epochs=3)
    assert state_of(loaded) == state_of(whole)


@pytest.mark.filterwarnings(EARLY_END)
def test_a_dense_start_that_is_saved_before_its_first_update_stays_dense():
    def schedules():
        return GraNet(Polynomial(0.8, initial=0.0, end=12, frequency=6), drop=Cosine(0.5, end=12, frequency=6), seed=3)

    whole, parts = ready(), ready()
    parts.set_weights(whole.get_weights())
    fit(whole, schedules(), epochs=3)
    for epoch in range(3):
        fit(parts, schedules(), initial_epoch=epoch, epochs=epoch + 1)
        assert (sum(pruned(parts).values()) > 0) == (epoch > 0)
    assert state_of(parts) == state_of(whole)


class Stop(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise self.error


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", FEW, ids=lambda row: row.name)
def test_an_interrupted_fit_leaves_a_model_that_fits_again(row):
    error = KeyboardInterrupt if row.grows else RuntimeError
    model = ready()
    with pytest.raises(error):
        fit(model, row.make(3), Stop(error))
    left = masks_of(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".* replaces weights every")
        callback, _ = watch(row, model)
    assert ["of a fit that was interrupted" in str(each.message) for each in caught] == [True]
    assert callback.masks == {}
    assert "apply" not in vars(model.optimizer)
    if row.split == "erk":
        assert {name: int(mask.sum()) for name, mask in left.items()} == {
            name: int(mask.sum()) for name, mask in masks_of(model).items()
        }


def test_an_interrupted_fit_leaves_a_model_that_fits_without_a_callback():
    model = ready()
    with pytest.raises(KeyboardInterrupt):
        fit(model, BY_NAME["RigL"].make(3), Stop(KeyboardInterrupt))
    masks = masks_of(model)
    fit(model, epochs=2)
    assert same_arrays(masks, masks_of(model))
    assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)


QUICK = [
    *(("MagnitudePruning-global", "before"), ("SET-sign", "before"), ("RigL", "before")),
    *(("RigL", "after"), ("GraNet-dense", "before"), ("GraNet-dense", "after")),
]


def stopping():
    """Stops after the second epoch, and brings back the weights of the first."""
    return keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", min_delta=1e6, patience=1, restore_best_weights=True
    )


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("row", "place"),
    [
        pytest.param(row, place, id=f"{row.name}-{place}", marks=[] if (row.name, place) in QUICK else pytest.mark.slow)
        for row in ROWS
        for place in ("before", "after")
    ],
)
def test_early_stopping_that_restores_the_best_weights(row, place):
    model, callback, stop = ready(), row.make(3), stopping()
    watcher = Watcher(callback, keep=True)
    fewer = row.split != "erk"  # the first epoch had pruned less
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".* replaces weights every")
        fit(model, watcher, *([stop, callback] if place == "before" else [callback, stop]))
    assert watcher.seen.wrong == []
    assert stop.stopped_epoch == 1
    messages = [str(each.message) for each in caught]
    assert [("has brought back weights" in message) for message in messages] == [True] * (place == "before" and fewer)
    assert "apply" not in vars(model.optimizer)
    if row.split == "block":
        return
    masked = {name: int((~mask).sum()) for name, mask in masks_of(model).items()}
    found = {"total": sum(masked.values())} if row.split == "total" else masked
    assert found == promised(row, model, 8 if place == "before" else 4)
    if not fewer or place == "after":
        # The masks of the weights that were brought back, which at the end of an epoch are those of its last update.
        first = watcher.seen.batches[STEPS]
        assert same_arrays(masks_of(model), first.masks)
        best = {kernel.path: kernel.variable.numpy() for kernel in kernels(model)}
        assert same_arrays(best, {path: first.began[path] for path in best})


def only(name):
    return lambda layer: layer.name != name


def test_two_callbacks_on_different_layers_of_one_fit():
    pairs = [
        (RigL(0.5, drop=Constant(0.3, end=12, frequency=2), seed=1, exclude=only("first")), "first"),
        (GraNet(Polynomial(0.8, initial=0.5, end=8, frequency=2), seed=1, exclude=only("second")), "second"),
        (MagnitudePruning(Polynomial(0.5, end=8, frequency=2), exclude=only("classes")), "classes"),
    ]
    model = ready(model=network())
    watchers = [Watcher(callback) for callback, _ in pairs]
    fit(model, *watchers, *(callback for callback, _ in pairs))
    assert [watcher.seen.wrong for watcher in watchers] == [[], [], []]
    sparsities = {name: (~mask).mean() for name, mask in masks_of(model).items()}
    assert sparsities == {"first": 72 / 144, "second": 230 / 288, "classes": 12 / 24}
    assert "apply" not in vars(model.optimizer)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "first"), [("RigL", True), ("RigL", False), ("MagnitudePruning", True)])
def test_beside_a_callback_that_prunes_filters(name, first):
    row, model = BY_NAME[name], ready(model=network())
    callback, filters = row.make(3), FPGM(0.25)
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((callback.masks, masks_of(model)))
    )
    fit(model, note, *([filters, callback] if first else [callback, filters]))
    final = masks_of(model)
    for masks, recorded in [*seen, (seen[-1][0], final)]:
        for layer, share in (("first", 1), ("second", 2), ("classes", 0)):
            dead = ~recorded[layer].reshape(-1, recorded[layer].shape[-1]).any(axis=0)
            assert dead.sum() >= share
            # What is not in a dead filter carries the mask of the callback.
            assert np.array_equal(recorded[layer][..., ~dead], (masks[layer] & recorded[layer])[..., ~dead])
    held = {layer: int((~mask).sum()) for layer, mask in seen[-1][0].items()}
    found = {"total": sum(held.values())} if row.split == "total" else held
    assert found == promised(row, model, 12)
    assert len(zero_filters(model.get_layer("second"))) >= 2
    assert all((kernel.variable.numpy()[~final[kernel.name]] == 0).all() for kernel in kernels(model))


def test_validation_at_the_end_of_an_epoch_is_of_the_masks_that_its_last_step_left():
    model = ready()
    callback = MagnitudePruning(Polynomial(0.6, end=3, frequency=1, unit="epochs"))
    history = fit(model, callback, validation_data=data(16, seed=9))
    found = model.evaluate(*data(16, seed=9), verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(found["loss"], rel=1e-6)
