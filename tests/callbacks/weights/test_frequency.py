"""New weights need some steps before the next update: a schedule that leaves them none warns."""

import warnings

import keras
import numpy as np
import pytest

from tfprune.callbacks import SET, GraNet, MagnitudePruning, RigL, StaticSparsity
from tfprune.distributions import uniform
from tfprune.schedules import Constant, Cosine, Polynomial

HASTY = {
    "RigL": lambda: RigL(0.5, drop=Cosine(0.3, frequency=4, end=9)),
    "RigL-every": lambda: RigL(0.5, drop=Constant(0.3, frequency=1)),
    "SET": lambda: SET(0.5, drop=Constant(0.3, frequency=2)),
    "GraNet": lambda: GraNet(Polynomial(0.5, initial=0.4, frequency=2, end=9)),
}
FINE = {
    "RigL": lambda: RigL(0.5, drop=Cosine(0.3, frequency=5, end=9)),
    "SET": lambda: SET(0.5),  # every epoch
    "GraNet": lambda: GraNet(Polynomial(0.5, initial=0.4, frequency=5, end=9)),
    "MagnitudePruning": lambda: MagnitudePruning(Polynomial(0.5, frequency=1, end=9)),  # grows nothing
}


def begin(callback):
    """What `fit` does before its first epoch."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 20})
    callback.on_train_begin()


@pytest.mark.parametrize("make", HASTY.values(), ids=HASTY)
def test_updates_in_quick_succession_warn(make):
    with pytest.warns(UserWarning, match=r"replaces weights every (\d )?steps?, .*frequency of at least 5 steps"):
        begin(make())


@pytest.mark.parametrize("make", FINE.values(), ids=FINE)
def test_others_do_not(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        begin(make())
    assert [str(each.message) for each in caught if "replaces weights every" in str(each.message)] == []


def test_the_logs_say_what_is_zero_and_not_what_was_meant_to_be():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    kernel = model.get_layer("hidden").kernel
    revive = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kernel.assign(np.ones((4, 8))))
    callback = StaticSparsity(0.5, distribution=uniform, exclude=[model.layers[-1]])
    with pytest.warns(UserWarning, match="Another callback has brought back weights"):
        history = model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0, callbacks=[revive, callback]).history
    assert history["sparsity"] == [0.0]
