"""Training in ever smaller models is the training in one whose dead channels are held at zero."""

import keras
import numpy as np
import pytest
from networks import weights_of

import tfprune
from tfprune.callbacks import (
    FPGM,
    FilterPruning,
    GroupLasso,
    GroupNormRegularization,
    MagnitudePruning,
    NetworkSlimming,
    SparseStructureSelection,
)
from tfprune.granularity import Channel
from tfprune.schedules import Function

L = keras.layers
X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.abs(X[:, :2])


def network(optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            *(keras.Input((6,)), L.Dense(8, use_bias=False, name="first"), L.BatchNormalization(), L.ReLU()),
            *(L.Dense(8, "relu", name="second"), L.Dense(2)),
        ]
    )
    model.compile(
        optimizer or keras.optimizers.SGD(0.05), "mse", run_eagerly=True
    )  # for so few steps, tracing would take longer
    return model


class Seen(keras.callbacks.Callback):
    """Writes down what it is told, and how wide the model is."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_end(self, epoch, logs=None):
        self.told.append((epoch, self.model.get_layer("first").units, self.model.get_layer("second").units))

    def on_train_end(self, logs=None):
        self.told.append("end")


def widths(seen):
    return [told[1:] for told in seen.told if isinstance(told, tuple)]


def both(make, optimizer, epochs, **arguments):
    """The same training in one model, shrunk at its end, and in models that get smaller."""
    dense, seen = network(optimizer()), Seen()
    given = {"batch_size": 24, "shuffle": False, "verbose": 0}
    history = dense.fit(X, Y, epochs=epochs, callbacks=[make()], **given).history
    small = tfprune.fit_narrowing(network(optimizer()), (X, Y), epochs, callbacks=[make(), seen], **given, **arguments)
    return dense, history, small, seen


def assert_same(dense, history, small):
    expected = tfprune.shrink(dense)
    for old, new in zip(weights_of(expected), weights_of(small), strict=True):
        assert old.shape == new.shape
        assert np.linalg.norm(old - new) <= 1e-6 * np.linalg.norm(old)
    assert small.history.epoch == list(range(len(history["loss"])))
    assert small.history.history.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(small.history.history[name], values, rtol=1e-5, err_msg=name)
    assert int(small.optimizer.iterations) == int(dense.optimizer.iterations)


def test_filters_that_are_held_from_the_start_leave_after_the_first_epoch():
    def optimizer():
        return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 6), momentum=0.9)

    dense, history, small, seen = both(lambda: FPGM(0.5), optimizer, epochs=6)
    assert_same(dense, history, small)
    assert [seen.told[0], seen.told[-1], len(seen.told)] == ["begin", "end", 8]
    assert widths(seen) == [(8, 8)] + [(4, 4)] * 5
    assert dense.get_layer("first").units == 8


def test_group_lasso_pulls_as_hard_at_channels_as_when_the_others_were_there():
    dense, history, small, seen = both(
        lambda: GroupLasso(0.7), lambda: keras.optimizers.SGD(0.05), epochs=9, min_saving=0.0
    )
    assert set(widths(seen)) == {(8, 8), (8, 6)}  # two channels left between epochs, others when training ended
    assert small.get_layer("first").units + small.get_layer("second").units == 16 - 6
    assert_same(dense, history, small)


def test_network_slimming_counts_from_the_channels_of_the_dense_model():
    # Gammas switch the first layer's 8 channels: floor(8 * 0.35) go after two epochs, floor(8 * 0.7) after four.
    def make():
        return NetworkSlimming(1e-2, 0.7, prune_at=(2, 4))

    dense, history, small, seen = both(make, lambda: keras.optimizers.Adam(0.01), epochs=5, min_saving=0.0)
    assert history["pruned_channels"] == small.history.history["pruned_channels"] == [0, 2, 2, 5, 5]
    assert widths(seen) == [(8, 8), (8, 8), (6, 8), (6, 8), (3, 8)]
    assert_same(dense, history, small)


def test_a_schedule_counts_filters_of_the_dense_model():
    def share(epochs_done):
        return min(0.25 * epochs_done, 0.75)

    def make():
        schedule = Function(share, unit="epochs", frequency=1)
        return FilterPruning(schedule, mode="hard", granularity=Channel(min_channels=3))

    dense, history, small, seen = both(make, lambda: keras.optimizers.SGD(0.05, momentum=0.9), epochs=5)
    assert history["pruned_filters"] == small.history.history["pruned_filters"] == [4, 8, 10, 10, 10]
    assert history["sparsity"] == small.history.history["sparsity"] == [0.25, 0.5, 0.625, 0.625, 0.625]
    assert widths(seen) == [(8, 8), (6, 6), (4, 4), (3, 3), (3, 3)]
    assert [dense.get_layer("first").units, small.get_layer("first").units] == [8, 3]


class Kill(keras.callbacks.Callback):
    """Makes the first channels of both layers zero at the end of an epoch, one more in each."""

    def on_epoch_end(self, epoch, logs=None):
        for name in ("first", "second"):
            layer = self.model.get_layer(name)
            for weight in [*layer.weights, *(self.model.layers[1].weights[:2] if name == "first" else [])]:
                value = weight.numpy()
                value[..., 0] = 0.0
                weight.assign(value)


@pytest.fixture(scope="module")
def rarely():
    """Of 48 + 64 + 16 MACs, one channel of both layers less leaves 42 + 49 + 14; that saves 18%."""
    found = {}
    for name, arguments in {"saving": {"min_saving": 0.25}, "every": {"every": 2}, "stop": {}}.items():
        seen, model = Seen(), network()
        stop = [keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)] if name == "stop" else []
        given = {"callbacks": [Kill(), seen, *stop], "verbose": 0, "batch_size": 24}
        found[name] = seen, tfprune.fit_narrowing(model, (X, Y), 3, **given, **arguments)
    return found


@pytest.mark.parametrize(
    ("name", "expected", "last"),
    [
        ("saving", [(8, 8), (8, 8), (8, 8)], 7),  # the first channels are dead already, so no more than 18% goes
        ("every", [(8, 8), (8, 8), (7, 7)], 6),
        ("stop", [(8, 8), (7, 7)], 6),
    ],
)
def test_how_often_the_model_gets_smaller(rarely, name, expected, last):
    seen, small = rarely[name]
    assert widths(seen) == expected
    assert small.get_layer("first").units == small.get_layer("second").units == last
    assert [seen.told[0], seen.told[-1], seen.told.count("begin")] == ["begin", "end", 1]
    assert small.history.epoch == list(range(len(expected)))


def test_nothing_dead_trains_in_place():
    model = network()
    trained = tfprune.fit_narrowing(model, (X, Y), 3, initial_epoch=1, verbose=0, batch_size=24)
    assert trained is model
    assert model.history.epoch == [1, 2]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: FPGM(0.5, mode="soft"), 'filters that it zeroes grow back; use mode="hard"'),
        (lambda: FilterPruning(0.5, mode="hard", ranking="global"), 'use ranking="local"'),
        (lambda: GroupLasso(0.1, parts="filter"), 'use parts="coupled" instead of'),
        (lambda: GroupNormRegularization(0.1), "become zero when training ends"),
        (lambda: SparseStructureSelection(0.1), "a factor that is zero can come back"),
        (lambda: MagnitudePruning(0.5), "it keeps masks or layers of the first model"),
        (lambda: keras.callbacks.BackupAndRestore("folder"), "weights of a larger model"),
        (lambda: keras.callbacks.EarlyStopping(restore_best_weights=True), "leave restore_best_weights out"),
    ],
    ids=["soft", "global", "filter", "decay", "factors", "weights", "backup", "best"],
)
def test_callbacks_that_cannot_go_on_are_refused(make, reason):
    model = network()
    before = weights_of(model)
    with pytest.raises(ValueError, match=f"cannot go on when channels leave the model: .*{reason}"):
        tfprune.fit_narrowing(model, (X, Y), 3, callbacks=[make()])
    assert all(map(np.array_equal, before, weights_of(model)))


def test_averages_of_weights_are_refused():
    with pytest.raises(ValueError, match="With use_ema, Keras overwrites the weights"):
        tfprune.fit_narrowing(network(keras.optimizers.SGD(use_ema=True)), (X, Y), 3)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be"),
        ({"every": 0}, ValueError, "every must be"),
        ({"min_saving": 1.0}, ValueError, "min_saving must be"),
        ({"data": X}, TypeError, "data must be a tuple"),
        ({"validation_split": 0.1}, ValueError, "validation_split"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(changed, error, message):
    with pytest.raises(error, match=message):
        tfprune.fit_narrowing(network(), **{"data": (X, Y), "epochs": 2, **changed})


def test_a_callback_counts_anew_in_the_next_fit():
    pruning = FPGM(0.5)
    tfprune.fit_narrowing(network(), (X, Y), 2, callbacks=[pruning], verbose=0, batch_size=24)
    history = network().fit(X, Y, epochs=1, callbacks=[pruning], verbose=0, batch_size=24)
    assert history.history["pruned_filters"] == [8]
