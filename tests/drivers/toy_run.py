"""A run of three phases on twelve numbers per sample: prune, train, and nothing but counting."""

import keras
import numpy as np
from networks import weights_of

import tfprune
from tfprune.callbacks import MagnitudePruning
from tfprune.drivers.phases import Phase
from tfprune.drivers.runs import Run
from tfprune.drivers.training import Fit

L = keras.layers
SETTINGS = {"run": "toy", "data": 1}
DATA = (
    np.random.default_rng(0).normal(size=(24, 12)).astype("float32"),
    np.arange(24) % 3,
    np.linspace(0.5, 1.5, 24, dtype="float32"),
)


def network():
    """What draws at random, what measures, and what keeps momentum: all of it has to come back."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((12,)), L.Dense(8), L.BatchNormalization(), L.ReLU(), L.Dropout(0.5), L.Dense(3)]
    )
    model.compile(
        keras.optimizers.SGD(0.02, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    return model


def same(model):
    return model


def count(model):
    return {"weights": model.count_params(), "draw": float(np.random.random())}


def phases(watch=(), epochs=(2, 2)):
    """Prune channels and train; train on with the same optimizer and prune weights; count.

    Args:
        watch: More callbacks.
        epochs: Of the first two.
    """

    def callbacks():
        return [MagnitudePruning(0.5), *watch]

    return [
        Phase(
            "prune",
            lambda model: tfprune.prune_channels(model, 0.5),
            Fit(DATA, epochs[0], 0.05, lambda: list(watch), arguments={"batch_size": 12}),
            count,
            seed=5,
        ),
        Phase("train", same, Fit(DATA, epochs[1], None, callbacks, arguments={"batch_size": 24}), count, seed=6),
        Phase("nothing", same, facts=count, seed=7),
    ]


def follow(path, watch=(), wanted=None, **asked):
    """Do the run, and return all that came out of it."""
    with Run(path, SETTINGS, **asked) as run:
        models = [model for _, model in run.follow(wanted or phases(watch), network())]
        return run.records, state_of(models[-1])


def state_of(model):
    """Weights, and what else a phase behind it would begin with: the optimizer, and what layers draw."""
    seeds = [variable for variable in model.variables if variable.name == "seed_generator_state"]
    assert seeds
    return weights_of(model), [variable.numpy() for variable in [*model.optimizer.variables, *seeds]]
