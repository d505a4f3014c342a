"""Networks whose right width is known: each callback must find it, with no loss of accuracy.

The data come from a teacher with a few hidden units that are all needed: their weights are orthogonal, and what they
contribute is alike. A student with several times as many units learns from it. A new callback adds a line to CALLBACKS.
"""

import functools

import keras
import numpy as np
import pytest

import tfprune
from tfprune.callbacks import (
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    MorphNet,
    NetworkSlimming,
)
from tfprune.callbacks.penalties.gammas import GammaRegularization

L = keras.layers
INPUTS = 12
CALLBACKS = {
    "GroupLasso": lambda: GroupLasso(0.01),
    "GroupLasso-unweighted": lambda: GroupLasso(0.04, size_weighting=False),
    "GroupLasso-filter": lambda: GroupLasso(0.003, parts="filter"),
    "GroupLasso-subgradient": lambda: GroupLasso(0.01, update="subgradient", threshold=0.1),
    "GroupNorm": lambda: GroupNormRegularization(0.014, threshold=0.1),
    "Growing": lambda: GrowingRegularization(5e-4, frequency=1, threshold=0.1),
    "MorphNet": lambda: MorphNet(1.5, threshold=0.05),
}
BY_DEFAULT = ("GroupLasso", "GroupNorm")
"""The others take the `slow` tests."""
LEVELLING_OFF = ("GroupLasso", "GroupLasso-unweighted", "GroupLasso-subgradient")
"""Those that find several widths at one strength; the others need one of their own for each width."""


def teacher(width, count, seed):
    """Inputs and outputs of a network with `width` hidden ReLU units that point in orthogonal directions."""
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(INPUTS, INPUTS)))[0][:, :width]
    signs = np.resize([1.0, -1.0], (width, 1))
    x = random.normal(size=(count, INPUTS))
    return x.astype("float32"), np.maximum(x @ directions, 0) @ signs


def student(width, normalized=False):
    """A wide network; with BatchNormalization for callbacks that prune by its gammas."""
    hidden = L.Dense(width, use_bias=not normalized, name="hidden")
    normalization = [L.BatchNormalization(momentum=0.9)] if normalized else []
    return keras.Sequential([keras.Input((INPUTS,)), hidden, *normalization, L.ReLU(), L.Dense(1)])


def train(model, data, epochs, *callbacks, learning_rate=0.05):
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(data[0]) // 32, alpha=0.02)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse", jit_compile=False, steps_per_execution=8)
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), verbose=0)
    return model


@functools.cache
def plain_loss(width, wide, epochs, normalized=False):
    """The validation loss of a wide student that is trained without a callback."""
    keras.utils.set_random_seed(3)
    model = train(student(wide, normalized), teacher(width, 1024, seed=1), epochs)
    return model.evaluate(*teacher(width, 512, seed=2), verbose=0)


def found_width(callback, width, wide, epochs):
    """The width that is left, and the validation loss after it was trained on without the callback."""
    data, validation = teacher(width, 1024, seed=1), teacher(width, 512, seed=2)
    keras.utils.set_random_seed(3)
    normalized = isinstance(callback, GammaRegularization)
    small = tfprune.shrink(train(student(wide, normalized), data, epochs, callback))
    return small.get_layer("hidden").units, train(small, data, epochs // 2).evaluate(*validation, verbose=0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name", [name if name in BY_DEFAULT else pytest.param(name, marks=pytest.mark.slow) for name in CALLBACKS]
)
def test_the_width_of_the_teacher_is_found(name):
    units, loss = found_width(CALLBACKS[name](), width=6, wide=24, epochs=25)
    assert units == 6
    assert loss <= plain_loss(width=6, wide=24, epochs=25, normalized=name == "MorphNet")


@pytest.mark.slow
def test_slimming_to_the_width_of_the_teacher_loses_nothing():
    callback = NetworkSlimming(0.01, ratio=0.75, prune_at=12)
    units, loss = found_width(callback, width=6, wide=24, epochs=25)
    assert units == 6
    assert loss <= plain_loss(width=6, wide=24, epochs=25, normalized=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELLING_OFF)
@pytest.mark.parametrize("width", [3, 10])
def test_other_widths_are_found(name, width):
    units, loss = found_width(CALLBACKS[name](), width=width, wide=32, epochs=40)
    assert abs(units - width) <= 0.1 * width
    assert loss <= plain_loss(width=width, wide=32, epochs=40, normalized=name == "MorphNet")


@pytest.mark.slow
@pytest.mark.parametrize("width", [3, 6, 10])
def test_the_gammas_of_slimming_tell_other_widths_at_one_strength(width):
    data, validation = teacher(width, 1024, seed=1), teacher(width, 512, seed=2)
    keras.utils.set_random_seed(3)
    # The ratio is that of the teacher; that it is right shows in the gammas before they are pruned.
    model = train(student(32, normalized=True), data, 40, NetworkSlimming(0.05, ratio=1 - width / 32, prune_at=20))
    alive = 32 - model.history.history["channels_below_threshold"][18]
    assert abs(alive - width) <= 0.1 * width
    small = tfprune.shrink(model)
    assert small.get_layer("hidden").units == width
    loss = train(small, data, 20).evaluate(*validation, verbose=0)
    assert loss <= plain_loss(width, wide=32, epochs=40, normalized=True)
