"""Callbacks, and what they are made of, can be copied and pickled, before and after a `fit`: tuners do."""

import copy
import pickle
import tempfile

import keras
import numpy as np
import pytest

from tfprune import Ranking
from tfprune.callbacks import (
    DSR,
    FPGM,
    SET,
    CollectTickets,
    EarlyBird,
    FilterPruning,
    FreezeBatchNormalization,
    GraNet,
    GroupLasso,
    GroupNormRegularization,
    GrowingRegularization,
    LayerwiseDensity,
    MagnitudePruning,
    MorphNet,
    NetworkSlimming,
    RigL,
    SoftFilterPruning,
    SparseStructureSelection,
    StaticSparsity,
)
from tfprune.criteria import BatchNormGamma, GroupNorm
from tfprune.granularity import Block, Channel, NofM
from tfprune.layers import with_scaling_factors
from tfprune.schedules import Constant, Cosine, Exponential, Function, Polynomial

CALLBACKS = {
    "MagnitudePruning": lambda: MagnitudePruning(0.5, granularity=Block((2, 2))),
    "SET": lambda: SET(0.5),
    "DSR": lambda: DSR(0.5, first_layer_dense=False),
    "RigL": lambda: RigL(0.5, drop=Cosine(0.3, frequency=5, end=9)),
    "GraNet": lambda: GraNet(0.5),
    "StaticSparsity": lambda: StaticSparsity(0.5),
    "FPGM": lambda: FPGM(0.5),
    "SoftFilterPruning": lambda: SoftFilterPruning(Exponential(0.5, unit="epochs", frequency=1)),
    "FilterPruning": lambda: FilterPruning(0.5, GroupNorm(), ranking=Ranking("global"), mode="hard"),
    "GroupLasso": lambda: GroupLasso(0.01),
    "GroupNormRegularization": lambda: GroupNormRegularization(0.01),
    "GrowingRegularization": lambda: GrowingRegularization(0.01, ratio=0.5),
    "NetworkSlimming": lambda: NetworkSlimming(0.01, 0.5),
    "MorphNet": lambda: MorphNet(0.01),
    "SparseStructureSelection": lambda: SparseStructureSelection(0.01),
    "LayerwiseDensity": lambda: LayerwiseDensity(),
    "FreezeBatchNormalization": lambda: FreezeBatchNormalization(1),
    "CollectTickets": lambda: CollectTickets(tempfile.mkdtemp(), cycle=1),
    "EarlyBird": lambda: EarlyBird(0.5, threshold=1, window=2),
}
VALUES = [
    *(Ranking("structure", normalize="lamp"), BatchNormGamma(), GroupNorm(), Channel(min_channels=2, round_to=4)),
    *(NofM(2, 4), Constant(0.3), Polynomial(0.5, end=9), Exponential(0.5, end=9), Function(abs)),
]
COPIES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]


def small():
    layers = keras.layers
    inputs = keras.Input((6, 6, 2))
    trunk = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inputs)))
    branch = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(trunk)))
    branch = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(branch))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Add()([trunk, branch])))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", jit_compile=False)
    return model


@pytest.mark.parametrize("name", CALLBACKS)
def test_copies_of_a_callback_prune_alike(name):
    settings = {key: value for key, value in vars(CALLBACKS[name]()).items() if isinstance(value, (int, float, str))}
    for copied in COPIES:
        found = copied(CALLBACKS[name]())
        assert isinstance(found, type(CALLBACKS[name]()))
        for key, value in settings.items():
            assert key == "seed" or getattr(found, key) == value


AFTER_A_FIT = ["RigL", "SparseStructureSelection"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in AFTER_A_FIT else pytest.mark.slow) for name in CALLBACKS]
)
def test_a_callback_is_copied_after_a_fit_and_used_again(name):
    model = with_scaling_factors(small()) if name == "SparseStructureSelection" else small()
    callback = CALLBACKS[name]()
    data = np.ones((8, 6, 6, 2)), np.ones((8, 2))
    model.fit(*data, epochs=2, batch_size=1, verbose=0, callbacks=[callback])
    for copied in COPIES:
        found = copied(callback)
        assert type(found) is type(callback)
    if name in AFTER_A_FIT[:1]:
        model.fit(*data, epochs=2, batch_size=1, verbose=0, callbacks=[found])


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_callbacks_are_made_of_is_copied(value):
    for copied in COPIES:
        found = copied(value)
        assert type(found) is type(value)
        assert vars(found) == vars(value)
