"""What every callback that prunes single weights promises. A new callback adds one row to ROWS in tests/sparse_rows.py
and inherits all of it: this file holds what is seen in an ordinary `fit`; the files beside it every way to compile,
interrupted and resumed training, and bad input."""

import csv
import itertools
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from networks import outputs, outputs_without_tfprune, relative_difference
from sparse_rows import (
    BY_NAME,
    FEW,
    ROWS,
    Watcher,
    data,
    fit,
    floor,
    masks_of,
    network,
    optimizers_of,
    promised,
    pruned,
    ready,
    same_arrays,
    state_of,
    watch,
)

from tfprune.parts.kernels import kernels


@dataclass(frozen=True)
class Run:
    """One fit of the small network, and what was seen before and after the callback at every batch end."""

    model: keras.Model
    callback: keras.callbacks.Callback
    before: Watcher
    after: Watcher
    history: dict[str, list[float]]
    logged: list[dict[str, str]]
    folder: object


# Of each kind one: of a distribution, a granularity, a way to grow and a way to start.
DEFAULT = ("MagnitudePruning-global", "MagnitudePruning-2-of-4", "MagnitudePruning-block", "SET-sign", "RigL", "GraNet")
DEFAULT += ("StaticSparsity",)


@pytest.fixture(
    scope="module",
    params=[pytest.param(row, marks=() if row.name in DEFAULT else pytest.mark.slow, id=row.name) for row in ROWS],
)
def row(request):
    return request.param


@pytest.fixture(scope="module")
def run(row, tmp_path_factory) -> Run:
    keras.utils.set_random_seed(1)
    model = ready(keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01), network())
    folder = tmp_path_factory.mktemp("run")
    callback = row.make(3)
    before, after = Watcher(callback, keep=True), Watcher(callback, keep=True)
    checkpoint = keras.callbacks.ModelCheckpoint(folder / "{epoch}-{batch}.keras", save_freq=3)
    log = keras.callbacks.CSVLogger(folder / "log.csv")
    history = fit(model, before, checkpoint, callback, after, log, validation_data=data(16, seed=9))
    with (folder / "log.csv").open() as file:
        logged = list(csv.DictReader(file))
    return Run(model, callback, before, after, history, logged, folder)


def living(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


def zeros_in(row, masks):
    """How many weights masks prune, by kernel name, or of all where a row promises only that."""
    counts = {name: int((~mask).sum()) for name, mask in masks.items()}
    return {"total": sum(counts.values())} if row.split == "total" else counts


def blocks_of(mask):
    """The mask's blocks of 2 x 2 in the last two axes, one a row; what sticks out counts as the rest of its block."""
    width = [(0, 0)] * (mask.ndim - 2) + [(0, -size % 2) for size in mask.shape[-2:]]
    padded = np.pad(mask, width, mode="edge")
    *outer, inputs, units = padded.shape
    blocks = padded.reshape(*outer, inputs // 2, 2, units // 2, 2)
    return np.moveaxis(blocks, -3, -2).reshape(-1, 4)


@pytest.mark.sampled(5)
def test_masked_weights_are_zero_at_every_batch_end_and_in_validation(run):
    assert run.before.seen.wrong == run.after.seen.wrong == []
    assert len(run.before.seen.batches) == 12
    assert run.before.seen.num_tests == run.after.seen.num_tests == 3
    assert run.before.seen.num_slots == (12 + 3) * 3  # 3 kernels, one momentum each


def test_as_many_weights_are_pruned_as_is_due_at_every_step(row, run):
    for batch in run.after.seen.batches:
        if row.split == "block":
            assert_whole_blocks(row, batch)
            continue
        expected = promised(row, run.model, batch.step)
        found = zeros_in(row, batch.masks)
        if row.name == "GraNet" and batch.step < row.updates[0]:
            found = {name: int((~mask).sum()) for name, mask in batch.masks.items()}
        assert found == expected, batch.step
    assert same_arrays(masks_of(run.model), run.after.seen.batches[-1].masks)
    assert sum(pruned(run.model).values()) > 0


def assert_whole_blocks(row, batch):
    for name, mask in batch.masks.items():
        blocks = blocks_of(mask)
        assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all(), name
        assert int((~blocks.any(axis=1)).sum()) == floor(len(blocks) * row.sparsity(batch.step))


def test_patterns_hold(row, run):
    final = run.after.seen.batches[-1]
    if row.name == "MagnitudePruning-2-of-4":
        for name, mask in final.masks.items():
            inputs_first = np.moveaxis(mask, -2, 0)
            groups = inputs_first.reshape(-1, 4, *inputs_first.shape[1:])
            assert (groups.sum(axis=1) == 2).all(), name
    if row.split == "block":
        assert int((~final.masks["second"]).sum()) == 288 // 2


def test_masks_change_only_when_an_update_is_due(row, run):
    changed = [
        earlier.step
        for earlier, later in itertools.pairwise(run.before.seen.batches)
        if not same_arrays(earlier.masks, later.masks)
    ]
    assert set(changed) <= set(row.updates)
    assert changed[:2] == list(row.updates[:2])


def test_pruned_weights_stay_pruned_unless_the_method_grows(row, run):
    states = [*run.after.seen.batches]
    revived = any(
        (later.masks[name] & ~earlier.masks[name]).any()
        for earlier, later in itertools.pairwise(states)
        for name in earlier.masks
    )
    assert revived == row.grows


def test_the_number_of_living_weights_is_constant_where_sparsity_is(row, run):
    states = [living(batch.masks) for batch in run.after.seen.batches]
    assert all(state == states[0] for state in states) == (row.split == "erk")


def test_sparsity_is_logged_and_measured(row, run):
    sizes = sum(mask.size for mask in run.before.seen.batches[0].masks.values())
    ends = [run.after.seen.batches[step - 1] for step in (4, 8, 12)]
    measured = [sum(int((~mask).sum()) for mask in batch.masks.values()) / sizes for batch in ends]
    assert run.history["sparsity"] == pytest.approx(measured, abs=1e-12)
    assert [float(line["sparsity"]) for line in run.logged] == run.history["sparsity"]
    assert run.history["sparsity"][-1] == pytest.approx(sum(pruned(run.model).values()) / sizes, abs=1e-12)


@pytest.mark.sampled(6)
def test_a_file_written_in_the_middle_of_an_epoch_has_the_zeros_and_the_masks(run):
    found = 0
    for epoch, batch in ((1, 3), (3, 1)):
        loaded = keras.models.load_model(run.folder / f"{epoch}-{batch}.keras")
        seen = run.before.seen.batches[(epoch - 1) * 4 + batch - 1]
        assert same_arrays(masks_of(loaded), seen.masks)
        found += sum(pruned(loaded).values())
    assert found > 0


def test_living_weights_train(run):
    first, last = run.before.seen.batches[0], run.after.seen.batches[-1]
    for kernel in kernels(run.model):
        mask = last.masks[kernel.name]
        assert (last.weights[kernel.path][mask] != first.began[kernel.path][mask]).mean() > 0.9


def test_nothing_of_the_callback_stays_on_the_model(run):
    assert "apply" not in vars(run.model.optimizer)
    assert type(run.model.optimizer) is keras.optimizers.SGD
    assert int(run.model.optimizer.iterations.numpy()) == 12
    assert run.callback.masks == {}


def test_plain_training_afterwards_revives_the_weights():
    row = BY_NAME["RigL"]
    model = ready()
    watch(row, model, epochs=1)
    before = sum(pruned(model).values())
    fit(model, epochs=1)
    assert sum(pruned(model).values()) < before / 2


@pytest.mark.slow
def test_saved_models_load_where_tfprune_is_not_installed(tmp_path):
    x, _ = data(4)
    expected = {}
    for row in (BY_NAME["MagnitudePruning"], BY_NAME["RigL"]):
        model = ready()
        fit(model, row.make(3), keras.callbacks.ModelCheckpoint(tmp_path / f"{row.name}-mid.keras", save_freq=3))
        model.save(tmp_path / f"{row.name}.keras")
        expected[row.name] = outputs(model, x)
        expected[f"{row.name}-mid"] = outputs(keras.models.load_model(tmp_path / f"{row.name}-mid.keras"), x)
    found = outputs_without_tfprune(tmp_path, expected, x)
    for name, value in expected.items():
        assert relative_difference(value, found[name]) < 1e-5


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", FEW, ids=lambda row: row.name)
def test_equal_weights_do_not_change_the_counts(kind):
    model = ready(keras.optimizers.SGD(0.0), network(kernel_initializer=keras.initializers.Constant(0.5)))
    watch(kind, model)
    # Nothing moves, so that SET's signs are all positive and everything that is grown at zero ties.
    assert all(set(np.unique(kernel.variable.numpy())) <= {0.0, 0.5} for kernel in kernels(model))
    if kind.split == "block":
        return
    assert zeros_in(kind, masks_of(model)) == promised(kind, model, 12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", FEW[::2], ids=lambda row: row.name)
def test_the_same_seed_gives_the_same_weights_and_masks_bit_for_bit(kind):
    states = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        model = ready()
        fit(model, kind.make(3))
        states.append(state_of(model))
    assert states[0] == states[1]


def first_masks(callback, model):
    """The masks with which a `fit` would start."""
    callback.set_model(model)
    callback.set_params({"epochs": 3, "steps": 4})
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    masks = list(callback.masks.values())
    callback.on_train_end()
    return masks


@pytest.mark.sampled(3)
def test_another_seed_gives_other_masks(row):
    masks = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(7)
        masks.append(first_masks(row.make(seed), ready()))
    first, again, other = masks
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, other, strict=True)) != row.seeded


def test_masks_do_not_depend_on_automatic_names():
    row = BY_NAME["RigL"]

    def masks():
        keras.utils.set_random_seed(7)
        units = [keras.layers.Dense(8, "relu"), keras.layers.Dense(4)]
        model = ready(model=keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Flatten(), *units]))
        watch(row, model)
        return [layer.name for layer in units], list(masks_of(model).values())

    (names, first), (other_names, second) = masks(), masks()
    assert not set(names) & set(other_names)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [row.name for row in ROWS if row.seeded])
def test_without_a_seed_the_random_seed_of_keras_decides(name):
    masks = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        masks.append(first_masks(BY_NAME[name].make(None), ready()))
    first, again, other = masks
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_two_layers_whose_slots_have_one_name_keep_their_own():
    class Block(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = keras.layers.Dense(8, name="inner")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, inputs):
            return self.inner(inputs)

    inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="block_inner")(Block(name="block")(inputs))
    model = keras.Model(inputs, x)
    assert {kernel.path.replace("/", "_") for kernel in kernels(model)} == {"block_inner_kernel"}
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", jit_compile=False)
    callback = BY_NAME["RigL"].make(3)
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    model.fit(x, x, batch_size=8, epochs=2, callbacks=[callback], verbose=0)
    slots = [v for v in optimizers_of(model)[0].variables if v.name == "block_inner_kernel_momentum"]
    for kernel, slot in zip(kernels(model), slots, strict=True):
        assert not slot.numpy()[kernel.variable.numpy() == 0].any()
        assert slot.numpy().any()
