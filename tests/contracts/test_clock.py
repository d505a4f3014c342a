"""The exact time at which every callback base uses its values: a table by data, steps per execution and start.

One `fit` holds a callback of each base. The penalty writes down, inside the compiled step, how hard it pulls; with a
strength of t at time t these are the times of all steps that were really made.
"""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.callbacks import (
    FreezeBatchNormalization,
    GrowingRegularization,
    SparseTraining,
    SparsityRegularization,
)
from tfprune.distributions import uniform
from tfprune.parts.structures import coupled
from tfprune.schedules import Constant, Function
from tfprune.training.clock import Clock
from tfprune.training.counted_steps import CountedSteps

L = keras.layers
X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")  # ten batches
Y = X[:, :1]


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)


def endless():
    while True:
        yield X[:2], Y[:2]


DATA = {
    "arrays": lambda: ((X, Y), {"batch_size": 2}),
    "known": lambda: ((batches(),), {}),
    "unknown": lambda: ((batches().filter(lambda x, y: True),), {}),
    "endless": lambda: ((batches().repeat(),), {"steps_per_epoch": 6}),
    "generator": lambda: ((endless(),), {"steps_per_epoch": 6}),
    "arrays, steps_per_epoch": lambda: ((X, Y), {"batch_size": 2, "steps_per_epoch": 6}),
}


class Pull(SparsityRegularization):
    """Notes the strength of every step, and changes nothing."""

    def find_structures(self, groups):
        self.made = keras.Variable(0, dtype="int32", trainable=False)
        self.noted = keras.Variable(np.full(64, -1), dtype="float32", trainable=False)
        return coupled(groups)

    def pull_weights(self, weight, rate, strength):
        made = tf.identity(self.made.value)
        noted = tf.tensor_scatter_nd_update(self.noted.value, [[made]], [tf.cast(strength, "float32")])
        return [(self.noted, noted), (self.made, made + 1)]

    @property
    def strengths(self):
        return self.noted.numpy()[: int(self.made.numpy())].astype(int).tolist()


class Update(SparseTraining):
    """Notes the times of updates, and leaves the masks as they are."""

    rewires = False

    def __init__(self, schedule, gradients="none"):
        super().__init__(schedule, uniform)
        self.gradients, self.times = gradients, []

    def start_masks(self, recorded, time):
        self.times.append(("start", time))
        return recorded

    def update_masks(self, weights, masks, gradients, time):
        self.times.append(time)
        assert set(gradients) == (set(weights) if self.gradients != "none" else set())
        return masks, {}


class Frozen(keras.callbacks.Callback):
    """Notes how many steps were made before the normalization was frozen."""

    def __init__(self, pull):
        super().__init__()
        self.pull, self.after = pull, None

    def on_train_batch_begin(self, batch, logs=None):
        if self.after is None and not self.model.layers[1].trainable:
            self.after = int(self.pull.made.numpy())


def fit(form, steps_per_execution, callbacks, epochs=2, **options):
    model = keras.Sequential(
        [keras.Input((4,)), L.Dense(3, use_bias=False), L.BatchNormalization(), L.ReLU(), L.Dense(1)]
    )
    model.compile("sgd", "mse", steps_per_execution=steps_per_execution, jit_compile=False)
    data, how = DATA[form]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        model.fit(*data, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks, **how, **options)
    assert "train_step" not in vars(model)
    assert "apply" not in vars(model.optimizer)
    return model


# For each form and number of steps per execution: when updates are made, and before which step the freezing after 7.
# Keras makes a last block whole where data is left, so `endless` makes 8 steps of 6. Of ten batches in an array, what
# the first epoch leaves is for the second.
TABLE = {
    ("arrays", 1): (range(20), range(1, 21), 7),
    ("arrays", 3): (range(20), [3, 6, 9, 10, 13, 16, 19, 20], 9),
    ("arrays", 4): (range(20), [4, 8, 10, 14, 18, 20], 8),
    ("known", 1): (range(20), range(1, 21), 7),
    ("known", 3): (range(20), [3, 6, 9, 10, 13, 16, 19, 20], 9),
    ("known", 4): (range(20), [4, 8, 10, 14, 18, 20], 8),
    ("unknown", 1): (range(20), range(1, 21), 7),
    ("unknown", 3): (range(20), [3, 6, 9, 10, 13, 16, 19, 20], 9),
    ("unknown", 4): (range(20), [4, 8, 10, 14, 18, 20], 8),
    ("endless", 1): (range(12), range(1, 13), 7),
    ("endless", 3): (range(12), [3, 6, 9, 12], 9),
    ("endless", 4): (range(16), [4, 8, 12], 8),
    ("generator", 1): (range(12), range(1, 13), 7),
    ("generator", 4): (range(16), [4, 8, 12], 8),
    ("arrays, steps_per_epoch", 1): (range(10), range(1, 11), 7),
    ("arrays, steps_per_epoch", 3): (range(10), [3, 6, 9, 10], 9),
    ("arrays, steps_per_epoch", 4): (range(10), [4, 8, 10], 8),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("form", "block"), TABLE, ids=lambda value: str(value))
def test_steps(form, block):
    steps, updates, frozen = TABLE[form, block]
    pull = Pull(Function(lambda t: t), threshold=0.0)
    update = Update(Function(lambda t: t / 100, frequency=1))
    watch = Frozen(pull)
    fit(form, block, [pull, update, FreezeBatchNormalization(7, "steps"), watch])
    assert pull.strengths == list(steps)
    assert update.times == [("start", 0), *updates]
    assert watch.after == frozen


RESUMED = {
    ("known", 1): (range(10, 20), range(11, 21), 3),
    ("known", 4): (range(10, 20), [14, 18, 20], 4),
    ("endless", 3): (range(6, 12), [9, 12], 3),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("form", "block"), RESUMED, ids=lambda value: str(value))
def test_steps_go_on_at_a_later_epoch(form, block):
    steps, updates, frozen = RESUMED[form, block]
    pull = Pull(Function(lambda t: t), threshold=0.0)
    update, watch = Update(Function(lambda t: t / 100, frequency=1)), Frozen(pull)
    after = steps[0] + 3
    fit(form, block, [pull, update, FreezeBatchNormalization(after, "steps"), watch], initial_epoch=1)
    assert pull.strengths == list(steps)
    assert update.times == [("start", steps[0]), *updates]
    assert watch.after == frozen


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["known", "unknown", "arrays, steps_per_epoch"])
@pytest.mark.parametrize("block", [1, 4])
def test_epochs(form, block):
    pull = Pull(Function(lambda t: t, unit="epochs"), threshold=0.0)
    update = Update(Constant(0.0, frequency=1, unit="epochs"))
    watch = Frozen(pull)
    validation = {"validation_data": (X, Y)} if block == 4 else {}
    fit(
        form,
        block,
        [pull, update, FreezeBatchNormalization(2, "epochs"), watch],
        epochs=4,
        initial_epoch=1,
        **validation,
    )
    # Arrays of ten batches give 6 (of 4: 8) steps to the first epoch of steps_per_epoch=6, the rest to the next.
    if form == "arrays, steps_per_epoch":
        epochs = [1] * (6 if block == 1 else 8) + [2] * (4 if block == 1 else 2)
        assert pull.strengths[:10] == epochs
        assert set(pull.strengths[10:]) == {3}
    else:
        assert pull.strengths == [1] * 10 + [2] * 10 + [3] * 10
    assert update.times == [("start", 1), 2, 3, 4]
    assert watch.after == pull.strengths.index(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pull(Function(lambda t: t), threshold=0.0),
        lambda: Update(Function(lambda t: t / 100)),
        lambda: FreezeBatchNormalization(7, "steps"),
    ],
    ids=["penalty", "weights", "freeze"],
)
def test_steps_before_a_later_epoch_of_unknown_length_are_not_guessed(make):
    with pytest.raises(ValueError, match=r"counts steps, but fit starts at epoch 1.*Pass steps_per_epoch"):
        fit("unknown", 1, [make()], initial_epoch=1)


def test_gradients_are_those_of_the_step_that_is_due():
    """Due after steps 5 and 11: the 5th in the block of steps 5 to 8, the 11th in the first block of the next epoch."""
    update = Update(Constant(0.1, begin=5, end=11, frequency=6), "after_update")
    fit("unknown", 4, [update])
    assert update.times == [("start", 0), 5, 11]
    update = Update(Constant(0.1, begin=7, end=12, frequency=5), "after_update")  # steps that steps_per_epoch lacks
    fit("endless", 4, [update])
    assert update.times == [("start", 0), 7, 12]


def test_steps_of_an_optimizer_that_accumulates_or_skips_count():
    """Why the optimizer's `iterations` are no clock: they count updates, and not those that overflow."""
    for optimizer in (
        keras.optimizers.SGD(0.01, gradient_accumulation_steps=3),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127),
    ):
        times = []

        class Count(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                self.clock = Clock(self, "steps")

            def on_epoch_begin(self, epoch, logs=None):
                self.clock.start_epoch(epoch)

            def on_train_batch_begin(self, batch, logs=None):
                self.clock.start_batch(batch)

            def on_train_batch_end(self, batch, logs=None):
                self.clock.end_batch(batch)
                times.append(self.clock.now)  # noqa: B023

            def on_train_end(self, logs=None):
                self.clock.stop()

        model = keras.Sequential([keras.Input((4,)), L.Dense(1)])
        model.compile(optimizer, "mse", steps_per_execution=4, jit_compile=False)
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Count()])
        assert times == [4, 8, 10]
        assert (
            int(optimizer.iterations.numpy() if hasattr(optimizer.iterations, "numpy") else optimizer.iterations) < 10
        )


def test_a_count_that_an_interrupted_fit_has_left_is_replaced():
    model = keras.Sequential([keras.Input((4,)), L.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2, jit_compile=False)
    first, second = {"epochs": 1}, {"epochs": 1}
    left = CountedSteps.join(model, first)
    counted = CountedSteps.join(model, second)
    assert CountedSteps.join(model, second) is counted is not left
    model.fit(X[:6], Y[:6], batch_size=2, verbose=0)
    assert (left.count(), counted.count()) == (0, 3)
    counted.leave()
    assert "train_step" in vars(model)
    counted.leave()
    assert "train_step" not in vars(model)


def test_a_training_function_that_makes_no_steps_is_told():
    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            self.train_function = lambda iterator: {"loss": 0.0}

    model = Own([keras.Input((4,)), L.Dense(3), L.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(RuntimeError, match=r"counts the calls of train_step.*steps_per_execution=1"):
        model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Update(Function(lambda t: t / 100))])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["known", "unknown"])
def test_decays_that_grow_count_updates_that_are_made(form):
    growing = GrowingRegularization(1e-3, frequency=4)
    fit(form, 1, [growing])
    assert [int(updates.numpy()) for updates in growing._updates.values()] == [20] * len(growing.structures)
