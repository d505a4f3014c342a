"""What the callbacks of tests/sparse_rows.py refuse, with words that say what to do, and what leaves no harm behind."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from sparse_rows import BY_NAME, FEW, ROWS, Watcher, data, fit, masks_of, perceptron, ready, same_arrays

from tfprune.callbacks import SET, GraNet, MagnitudePruning, RigL, StaticSparsity
from tfprune.distributions import uniform
from tfprune.granularity import Block, NofM
from tfprune.schedules import Constant, Cosine, Polynomial

L = keras.layers
CLASSES = [MagnitudePruning, SET, RigL, GraNet, StaticSparsity]
SEEDED = [SET, RigL, GraNet, StaticSparsity]
# Keras says so at the end of the first epoch, when it learns how long one is.
RAN_OUT = pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
ROW_IDS = {"ids": lambda row: row.name}


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 2, float("nan"), float("inf"), True, None, "0.5"])
@pytest.mark.parametrize("callback", CLASSES)
def test_a_sparsity_out_of_range_is_refused(callback, sparsity):
    with pytest.raises((ValueError, TypeError), match=r"must be a number in \[0, 1\)|a number in \[0, 1\)"):
        callback(sparsity)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1"])
@pytest.mark.parametrize("callback", SEEDED)
def test_a_seed_that_is_not_a_whole_number_is_refused(callback, seed):
    with pytest.raises(ValueError, match="seed must be a whole number that is not negative, or None"):
        callback(0.5, seed=seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SET(0.5, criterion="size"), 'criterion must be "sign" or "magnitude". Received: \'size\''),
        (lambda: MagnitudePruning(Polynomial(0.5, begin=10, end=5)), "end must be later than begin"),
        (lambda: RigL(0.5, drop=Cosine(0.3, begin=10, end=10)), "end must be later than begin"),
        (lambda: MagnitudePruning(Polynomial(0.5, initial=0.6)), "initial must not be above final"),
        (lambda: RigL(0.5, drop=Cosine(0.3, frequency=0)), "frequency must be an integer of at least 1"),
        (lambda: RigL(0.5, drop=Cosine(0.3, unit="batches")), 'unit must be "steps" or "epochs"'),
        (lambda: GraNet(0.9, drop=Cosine(0.3, unit="epochs")), "must count in one unit"),
        (lambda: MagnitudePruning(0.9, granularity=NofM(2, 4)), "at most 0.5 can be pruned.*another pattern"),
        (lambda: MagnitudePruning(0.9, granularity=Block((0, 1))), "two integers of at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def refused(callback, message, model=None, **options):
    """The fit raises before the first step, and leaves the model as it was."""
    model = model or ready()
    weights = model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(model, callback, **options)
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert "apply" not in vars(model.optimizer)


@pytest.mark.parametrize(
    "callback",
    [
        MagnitudePruning(Polynomial(0.5, begin=9)),
        RigL(0.5, drop=Cosine(0.3, begin=20)),
        GraNet(Polynomial(0.5, begin=6)),
        GraNet(Polynomial(0.5, end=6), drop=Cosine(0.3, begin=12)),
    ],
    ids=["MagnitudePruning", "RigL", "GraNet", "GraNet-drop"],
)
def test_a_schedule_that_begins_after_its_end_is_refused(callback):
    refused(callback, r"would begin at .* but training has 12.*Begin earlier, train longer, or give an `end`")


@pytest.mark.parametrize("override", [1.0, -0.5, float("nan"), True, "half"])
@pytest.mark.parametrize("callback", [RigL, MagnitudePruning])
def test_an_override_out_of_range_is_refused(callback, override):
    model = ready()
    overrides = {model.get_layer("hidden"): override}
    refused(callback(0.5, overrides=overrides), r"`overrides` gives 'hidden' must be a number in \[0, 1\)", model)
    refused(callback(0.5, overrides=lambda layer: override), r"`overrides` gives 'hidden' must be a number", model)


def test_overrides_for_layers_that_are_not_pruned_are_refused():
    model = ready()
    for layer in (L.Dense(3, name="foreign"), model.layers[0]):
        refused(RigL(0.5, overrides={layer: 0.5}), f"no weights to prune in this model.*{layer.name}", model)
    hidden = model.get_layer("hidden")
    refused(RigL(0.5, overrides={hidden: 0.5}, exclude=[hidden]), "or are excluded.*hidden", model)
    pattern = MagnitudePruning(0.4, granularity=NofM(2, 4), overrides={hidden: 0.6})
    refused(pattern, "at most 0.5 can be pruned", model)


def test_an_override_counts_apart_from_the_others():
    model = ready()
    fit(model, MagnitudePruning(Polynomial(0.5, end=8, frequency=4), overrides={model.get_layer("hidden"): 0.75}))
    zeros = {name: int((~mask).sum()) for name, mask in masks_of(model).items()}
    assert zeros == {"hidden": 144 * 8 * 3 // 4, "classes": 16}


def test_blocks_of_a_vector_are_refused_before_training():
    scale = L.EinsumDense("ab,b->ab", output_shape=8, name="scale")
    model = ready(model=keras.Sequential([keras.Input((6, 6, 4)), L.Flatten(), L.Dense(8), scale, L.Dense(3)]))
    late = Polynomial(0.5, begin=4, end=8)
    message = "'scale' cannot be pruned so. Leave it out with `exclude`.*Use Unstructured"
    refused(MagnitudePruning(late, granularity=Block((2, 2))), message, model)


@pytest.mark.parametrize("row", ROWS, **ROW_IDS)
def test_a_model_without_layers_to_prune_is_refused(row):
    model = perceptron()
    model.trainable = False
    trainable = L.BatchNormalization()
    model = ready(model=keras.Sequential([keras.Input((6, 6, 4)), trainable, model]))
    refused(row.make(3), "finds no weights to prune.*no trainable layer with a kernel that is not excluded", model)
    refused(row.make(3), "finds no weights to prune", model)


def test_a_model_whose_layers_are_all_excluded_is_refused():
    refused(RigL(0.5, exclude=lambda layer: True), "finds no weights to prune.*not excluded")


@pytest.mark.parametrize("row", ROWS, **ROW_IDS)
def test_a_model_that_is_not_compiled_is_refused(row):
    callback = row.make(3)
    callback.set_model(perceptron())
    callback.set_params({"epochs": 3, "steps": 4})
    callback.on_train_begin()
    with pytest.raises(ValueError, match=r"is not compiled.*Call model\.compile\(\)"):
        callback.on_epoch_begin(0)


def fit_unsized(model, *callbacks, epochs=3, **options):
    """Fit on the same batches, whose number Keras learns only when an epoch ends."""
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(8).filter(lambda x, y: True)
    return model.fit(batches, callbacks=list(callbacks), epochs=epochs, shuffle=False, verbose=0, **options).history


@pytest.mark.parametrize(
    ("callback", "options", "message"),
    [
        (MagnitudePruning(0.5), {}, r"cannot tell when to end.*Give the schedule an `end`.*steps_per_epoch"),
        (RigL(0.5), {}, r"cannot tell when to end.*steps_per_epoch"),
        (GraNet(0.5), {}, r"cannot tell when to end.*steps_per_epoch"),
        (MagnitudePruning(Polynomial(0.5, end=8)), {"initial_epoch": 1}, "starts at epoch 1.*Pass steps_per_epoch"),
        (SET(0.5, drop=Constant(0.3)), {"initial_epoch": 1}, "starts at epoch 1.*or count in epochs"),
        (RigL(0.5, drop=Constant(0.3, unit="epochs", end=3)), {}, "gradient of an epoch's last step.*count in steps"),
        (GraNet(Polynomial(0.5, unit="epochs", end=2)), {}, "gradient of an epoch's last step.*steps_per_epoch"),
    ],
)
def test_an_unknown_number_of_steps_is_refused_where_it_matters(callback, options, message):
    model = ready()
    with pytest.raises(ValueError, match=message):
        fit_unsized(model, callback, **options)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.sampled(1)
@RAN_OUT
@pytest.mark.parametrize(("name", "validation"), [("MagnitudePruning", True), ("SET", True), ("SET", False)])
def test_epochs_are_counted_where_the_number_of_steps_is_unknown(name, validation):
    def make():
        if name == "SET":
            return SET(0.6, drop=Constant(0.3, frequency=1, unit="epochs"), seed=3)
        return MagnitudePruning(Polynomial(0.6, end=3, frequency=1, unit="epochs"))

    masks, models, histories = [], [], []
    for fitting in (fit, fit_unsized):
        keras.utils.set_random_seed(1)
        callback, model = make(), ready(keras.optimizers.SGD(0.05))  # Adam's iterations count the end of the data too
        watcher = Watcher(callback)
        options = {"validation_data": data(8, seed=9)} if validation else {}
        histories.append(fitting(model, watcher, callback, **options))
        assert watcher.seen.wrong == []
        masks.append(masks_of(model))
        models.append(model.get_weights())
    assert same_arrays(*masks)
    assert all(np.array_equal(a, b) for a, b in zip(*models, strict=True))
    assert histories[0]["sparsity"] == histories[1]["sparsity"]
    if validation:
        assert histories[0]["val_loss"] == histories[1]["val_loss"]


@pytest.mark.sampled(1)
@RAN_OUT
@pytest.mark.parametrize("name", ["SET-magnitude", "RigL", "GraNet"])
def test_steps_are_counted_where_their_number_is_unknown(name):
    row, masks = BY_NAME[name], []
    for fitting in (fit, fit_unsized):
        keras.utils.set_random_seed(1)
        callback, model = row.make(3), ready(keras.optimizers.SGD(0.05))
        fitting(model, callback, epochs=2 if name == "SET-magnitude" else 3)
        masks.append(masks_of(model))
    if name != "GraNet":  # which does not know that a step is its last, and grows once more
        assert same_arrays(*masks)


@RAN_OUT
def test_an_update_right_after_the_end_of_the_data_is_by_the_gradient_of_its_own_step():
    """Where the length is unknown, Keras begins a step before it finds that there is no data for it."""
    seen = []

    class Noted(RigL):
        def update_masks(self, weights, masks, gradients, time):
            seen.append((time, gradients["hidden"]))
            return super().update_masks(weights, masks, gradients, time)

    for fitting in (fit, fit_unsized):
        keras.utils.set_random_seed(1)
        callback = Noted(0.6, drop=Constant(0.3, end=11, frequency=2), seed=3)
        fitting(ready(keras.optimizers.SGD(0.05)), callback)
    assert [time for time, _ in seen] == [0, 2, 4, 6, 8, 10] * 2
    for (_, known), (_, unknown) in zip(seen[:6], seen[6:], strict=True):
        assert np.array_equal(known, unknown)


class Poison(keras.callbacks.Callback):
    """Makes a weight NaN before a batch; the callback has to notice at its next update."""

    def __init__(self, at):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            self.model.get_layer("hidden").kernel.assign_add(np.full((144, 8), np.nan))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("row", FEW[:-1], **ROW_IDS)  # the last never updates
def test_weights_that_are_not_finite_stop_training_and_harm_no_mask(row):
    model, callback = ready(keras.optimizers.SGD(0.1)), row.make(3)
    masks = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: masks.append(callback.masks))
    message = r"(is|are) not finite, so .* cannot rank.*The masks are as they were.*Lower the learning rate"
    with pytest.raises(ValueError, match=message):
        fit(model, note, callback, Poison(row.updates[1]))
    assert "apply" not in vars(model.optimizer)
    assert callback.masks == {}
    assert same_arrays(masks_of(model), masks[-1])
    # Nothing holds the weights any more, and a new fit of the repaired model works.
    for weight in model.weights:
        weight.assign(np.nan_to_num(weight.numpy()))
    fit(model, epochs=1)


def test_a_learning_rate_that_is_far_too_high_stops_training():
    model = ready(keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match=r"not finite.*clip gradients"):
        fit(model, RigL(0.5, drop=Constant(0.3, end=11, frequency=2), seed=1))
    assert "apply" not in vars(model.optimizer)


@pytest.mark.parametrize("name", ["RigL", "GraNet"])
def test_gradients_that_are_not_finite_stop_training(name):
    x, y = data()
    model = ready(keras.optimizers.SGD(0.1))
    callback = BY_NAME[name].make(3)
    with pytest.raises(ValueError, match="The gradient of 'hidden' is not finite"):
        model.fit(x * np.nan, y, batch_size=8, callbacks=[callback], epochs=3, verbose=0)
    assert "apply" not in vars(model.optimizer)


def test_weights_that_are_not_finite_at_the_start_are_refused():
    model = ready()
    model.get_layer("hidden").kernel.assign(np.full((144, 8), np.nan))
    with pytest.raises(ValueError, match="'hidden' has weights that are not finite"):
        fit(model, StaticSparsity(0.5, distribution=uniform))
    assert "apply" not in vars(model.optimizer)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["RigL", "GraNet", "SET-magnitude"])
def test_an_overflow_in_mixed_precision_delays_the_update(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=2.0**24)
        model, row = ready(optimizer), BY_NAME[name]
        callback = row.make(3)
        watcher = Watcher(callback, keep=True)
        fit(model, watcher, callback)
        assert watcher.seen.wrong == []
        batches = watcher.seen.batches
        counts = [int(batch.slots[optimizer.iterations.path]) for batch in batches]
        first = next(batch.step for batch, count in zip(batches, counts, strict=True) if count > 0)
        assert first > row.updates[0]  # whose step overflowed
        changes = [one.step for one, two in itertools.pairwise(batches) if not same_arrays(one.masks, two.masks)]
        assert changes[0] == (first if row.gradients != "none" else row.updates[0])
        assert all(np.isfinite(weight.numpy()).all() for weight in model.weights)
    finally:
        keras.config.set_dtype_policy("float32")
