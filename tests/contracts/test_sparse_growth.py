"""Updates of the callbacks in tests/sparse_rows.py, one by one, against what the papers say, computed naively."""

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sparse_rows import BY_NAME, ROWS, Watcher, data, fit, network, ready, same_arrays

from tfprune.callbacks import SET, GraNet, RigL
from tfprune.parts.kernels import kernels
from tfprune.schedules import Constant, Polynomial

# Of each callback one row, the others are slow.
DEFAULT = ("SET-sign", "RigL", "GraNet")
GROWING = [
    pytest.param(row, id=row.name, marks=() if row.name in DEFAULT else pytest.mark.slow) for row in ROWS if row.grows
]
BY_GRADIENT = [case for case in GROWING if case.values[0].gradients != "none"]


@functools.cache
def seen(row):
    """The model, and what was seen before and after the callback of a row at every batch end."""
    keras.utils.set_random_seed(1)
    # Not Adam: its first steps are of one size, so that many magnitudes would tie.
    model = ready(keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=1.0, weight_decay=0.01), network())
    callback = row.make(3)
    before, after = Watcher(callback, keep=True), Watcher(callback, keep=True)
    fit(model, before, callback, after)
    assert before.seen.wrong == after.seen.wrong == []
    return model, before.seen.batches, after.seen.batches


def updates(row):
    """The kernels before and after each update: the step, the kernel, and the batches."""
    model, before, after = seen(row)
    return [(step, kernel, before[step - 1], after[step - 1]) for step in row.updates for kernel in kernels(model)]


def slot_of(batch, kernel):
    return next(v for path, v in batch.slots.items() if path.endswith(kernel.path.replace("/", "_") + "_momentum"))


def dense_gradient(model, weights, step):
    """The gradient of the batch of a step at given weights, of a model that is built anew."""
    fresh = network()
    for old, new in zip(model.trainable_variables, fresh.trainable_variables, strict=True):
        new.assign(weights[old.path])
    x, y = data()
    batch = slice((step - 1) % 4 * 8, (step - 1) % 4 * 8 + 8)
    with tf.GradientTape() as tape:
        outputs = fresh(x[batch], training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y[batch], outputs)
    gradients = tape.gradient(loss, [v.value for v in fresh.trainable_variables])
    return {old.path: gradient.numpy() for old, gradient in zip(model.trainable_variables, gradients, strict=True)}


def naive_rewire(mask, weights, gradient, count):
    """Drop `count` living weights of the smallest magnitude, grow as many by the gradient; with plain loops."""
    living = sorted(zip(*np.nonzero(mask), strict=True), key=lambda i: abs(weights[i]))
    kept = set(living[count:])
    others = [i for i in np.ndindex(mask.shape) if i not in kept]
    grown = sorted(others, key=lambda i: -abs(gradient[i]))[:count]
    result = np.zeros(mask.shape, bool)
    for index in (*kept, *grown):
        result[tuple(index)] = True
    return result


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", GROWING)
def test_grown_weights_start_at_zero_and_the_optimizer_remembers_nothing(row):
    grown = 0
    for _, kernel, before, after in updates(row):
        new = after.masks[kernel.name] & ~before.masks[kernel.name]
        grown += int(new.sum())
        assert not after.weights[kernel.path][new].any()
        assert not slot_of(after, kernel)[new].any()
    assert grown > 10


@pytest.mark.parametrize("row", GROWING)
def test_other_living_weights_keep_their_value_and_their_slots(row):
    kept_at_zero = 0
    for step, kernel, before, after in updates(row):
        masks = before.masks
        if row.gradients == "after_update":  # what is pruned and grown at once starts anew
            values = {each.name: before.weights[each.path] for each in kernels(seen(row)[0])}
            masks = naive_global(row, values, masks, step)
        stayed = after.masks[kernel.name] & masks[kernel.name]
        same_weight = after.weights[kernel.path] == before.weights[kernel.path]
        same_slot = slot_of(after, kernel) == slot_of(before, kernel)
        anew = (after.weights[kernel.path] == 0) & (slot_of(after, kernel) == 0)
        if row.gradients != "none":
            # Also of a weight that is dropped and grown in one update.
            assert same_weight[stayed].all()
            assert same_slot[stayed].all()
        else:
            # SET starts those anew, and everything else stays.
            assert ((same_weight & same_slot) | anew)[stayed].all()
            kept_at_zero += int((anew & ~same_weight)[stayed].sum())
    assert (kept_at_zero > 0) == (row.gradients == "none")


@pytest.mark.parametrize("row", GROWING)
def test_only_rigl_gives_a_step_to_its_update(row):
    model, before, after = seen(row)
    for step in range(1, 13):
        moved = not same_arrays(before[step - 1].began, before[step - 1].weights)
        assert moved == (row.gradients != "instead_of_update" or step not in row.updates), step
    counts = [next(int(v) for path, v in batch.slots.items() if "iteration" in path) for batch in after]
    assert counts == list(range(1, 13))
    assert int(model.optimizer.iterations.numpy()) == 12


def fraction(name, step):
    """The drop fraction of the update after a step, from the papers."""
    return {
        "RigL": 0.4 / 2 * (1 + math.cos(math.pi * (step - 1) / 10)),
        "RigL-constant": 0.3,
        "GraNet": 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * step / 12)),
        "GraNet-dense": 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * step / 12)),
    }[name]


def naive_global(row, weights, masks, step):
    """The masks without the smallest weights of all, by the schedule."""
    total = sum(mask.size for mask in masks.values())
    ranked = sorted(
        (abs(weights[name][i]) if mask[i] else -1.0, name, i)
        for name, mask in masks.items()
        for i in np.ndindex(mask.shape)
    )
    left = {name: mask.copy() for name, mask in masks.items()}
    for _, name, index in ranked[: math.floor(round(total * row.sparsity(step), 9))]:
        left[name][index] = False
    return left


@pytest.mark.parametrize("row", BY_GRADIENT)
def test_updates_are_those_of_the_paper_by_the_gradient_of_the_training_batch(row):
    model, before, after = seen(row)
    grown = 0
    for step in row.updates:
        gradients = dense_gradient(model, before[step - 1].began, step)
        masks = dict(before[step - 1].masks)
        weights = {kernel.name: before[step - 1].weights[kernel.path] for kernel in kernels(model)}
        if row.gradients == "after_update":
            masks = naive_global(row, weights, masks, step)
        for kernel in kernels(model):
            mask = masks[kernel.name]
            share = round(int(mask.sum()) * fraction(row.name, step), 9)
            count = math.floor(share) if row.gradients == "instead_of_update" else math.ceil(share)
            expected = naive_rewire(mask, weights[kernel.name], gradients[kernel.path], count)
            assert np.array_equal(after[step - 1].masks[kernel.name], expected), (step, kernel.name)
            grown += int((expected & ~mask).sum())
    assert grown > 10


@pytest.mark.parametrize("name", ["SET-sign", pytest.param("SET-magnitude", marks=pytest.mark.slow)])
def test_set_drops_what_is_nearest_to_zero(name):
    row = BY_NAME[name]
    for _, kernel, before, after in updates(row):
        mask, values = before.masks[kernel.name], before.weights[kernel.path]
        kept = after.masks[kernel.name] & (after.weights[kernel.path] != 0)
        for side in (values > 0, values < 0) if name == "SET-sign" else (np.ones_like(mask),):
            living = np.abs(values[mask & side])
            number = len(living) - math.floor(round(0.3 * len(living), 9))
            assert np.array_equal(np.sort(np.abs(values[kept & side])), np.sort(living)[len(living) - number :])


LAST = {
    "SET": (lambda: SET(0.6, criterion="magnitude", drop=Constant(0.3, frequency=3), seed=1), 4),
    "RigL": (lambda: RigL(0.6, drop=Constant(0.3, begin=1, end=12, frequency=2), seed=1), 4),
    "RigL-last-step": (lambda: RigL(0.6, drop=Constant(0.3, begin=3, end=12, frequency=4), seed=1), 1),
    "GraNet": (lambda: GraNet(Polynomial(0.8, initial=0.5, end=10, frequency=2), seed=1), 4),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", LAST)
def test_nothing_grows_where_it_would_not_be_trained(name):
    make, steps = LAST[name]
    model, callback = ready(steps_per_execution=steps), make()
    before, after = Watcher(callback, keep=True), Watcher(callback, keep=True)
    sparsity = fit(model, before, callback, after)["sparsity"][-1]
    grown = [
        sum(int((now.masks[n] & ~was.masks[n]).sum()) for n in now.masks)
        for was, now in zip(before.seen.batches, after.seen.batches, strict=True)
    ]
    assert grown[-1] == 0
    assert sum(grown) > 0
    assert sparsity == pytest.approx(0.8 if name == "GraNet" else 0.6, abs=0.01)


def test_weights_grow_in_the_last_steps_of_a_fit_if_the_schedule_goes_on():
    callback = SET(0.6, criterion="magnitude", drop=Constant(0.3, end=24, frequency=3), seed=1)
    before, after = Watcher(callback, keep=True), Watcher(callback, keep=True)
    fit(ready(steps_per_execution=4), before, callback, after)
    assert not same_arrays(before.seen.batches[-1].masks, after.seen.batches[-1].masks)


def test_the_last_pruning_is_made_up_for_where_a_later_growth_falls_into_the_same_steps():
    callback = GraNet(Polynomial(0.8, initial=0.5, end=2, frequency=2), drop=Constant(0.3, frequency=3), seed=1)
    history = fit(ready(steps_per_execution=4), callback, epochs=2)
    assert history["sparsity"] == pytest.approx([0.8, 0.8], abs=0.01)
