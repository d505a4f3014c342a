"""NetworkSlimming: the step by hand, exact counts over the whole network, rounds, recovery, selected inputs."""

import keras
import numpy as np
import pytest
from networks import (
    compiled,
    densely_connected,
    images,
    outputs,
    preactivation,
    randomize,
    relative_difference,
    residual,
    same,
    weights_of,
)

import tfprune
from tfprune.callbacks import NetworkSlimming
from tfprune.schedules import Polynomial

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:NetworkSlimming has left")


def two(filters=(4, 6)):
    """A chain in which both convolutions are normalized."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(filters[0], 3, padding="same", use_bias=False, name="first"),
            L.BatchNormalization(name="first_bn"),
            L.ReLU(),
            L.Conv2D(filters[1], 3, name="second"),
            L.BatchNormalization(name="second_bn"),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes"),
        ]
    )


def gammas(model, *names):
    return [model.get_layer(name).gamma.numpy() for name in names]


def fit(model, *callbacks, epochs=1, samples=16, optimizer="sgd", **options):
    # Two steps an epoch: as few of them are made faster than traced.
    compiled(model, optimizer, **{"jit_compile": False, "run_eagerly": epochs * samples <= 32, **options})
    return model.fit(
        *images(samples), batch_size=8, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False
    ).history


def with_gammas(model, values):
    """Set gammas; return the model."""
    for name, value in values.items():
        model.get_layer(name).gamma.assign(value)
    return model


def pruned(model, *names):
    return [np.flatnonzero(model.get_layer(name).gamma.numpy() == 0).tolist() for name in names]


def still():
    """An optimizer that leaves the weights as they are."""
    return keras.optimizers.SGD(0.0)


class Watch(keras.callbacks.Callback):
    """Remembers gammas at every batch end."""

    def __init__(self, *names):
        super().__init__()
        self.names, self.seen = names, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([value.copy() for value in gammas(self.model, *self.names)])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_one_step_moves_gamma_by_the_learning_rate_times_the_strength_times_its_sign(momentum):
    def after(strength):
        model = randomize(two())
        callback = NetworkSlimming(strength, 0.5, prune_at=2)
        watch = Watch("first_bn", "second_bn")
        keras.utils.set_random_seed(3)
        fit(model, callback, watch, epochs=2, samples=8, optimizer=keras.optimizers.SGD(0.1, momentum=momentum))
        return watch.seen[0]

    before = gammas(randomize(two()), "first_bn", "second_bn")
    for start, without, with_pull in zip(before, after(0.0), after(0.5), strict=True):
        np.testing.assert_allclose(with_pull, without - 0.1 * 0.5 * np.sign(start), atol=1e-6)


def test_proximal_update_stops_at_zero_and_spares_the_largest():
    model = randomize(two())
    watch = Watch("first_bn", "second_bn")
    before = gammas(model, "first_bn", "second_bn")
    fit(model, NetworkSlimming(5.0, 0.1, update="proximal"), watch, samples=8, optimizer=still())
    for start, now in zip(before, watch.seen[0], strict=True):
        np.testing.assert_array_equal(start, now)  # the learning rate is 0
    model = randomize(two())
    watch = Watch("first_bn", "second_bn")
    model.get_layer("first_bn").gamma.assign([0.4, -0.02, 0.9, 0.05])
    keras.utils.set_random_seed(3)
    fit(model, NetworkSlimming(1e3, 0.1, update="proximal"), watch, samples=8, optimizer=keras.optimizers.Adam(1e-3))
    first, second = watch.seen[0]
    assert np.flatnonzero(first).tolist() == [2]
    assert not np.signbit(first[first == 0]).any()
    assert np.count_nonzero(second) == 1


def test_the_smallest_gammas_of_the_whole_network_go():
    model = with_gammas(randomize(two()), {"first_bn": [0.1, -0.9, 0.5, 0.3], "second_bn": [1, -0.2, 0.4, 2, 0.05, 3]})
    history = fit(model, NetworkSlimming(0.0, 0.4), optimizer=still())
    assert pruned(model, "first_bn", "second_bn") == [[0, 3], [1, 4]]
    assert history["pruned_channels"] == [4]
    assert history["regularization_loss"] == [0.0]
    assert history["channels_below_threshold"] == [4]
    assert (model.get_layer("first").kernel.numpy()[..., [0, 3]] == 0).all()
    assert (model.get_layer("second").bias.numpy()[[1, 4]] == 0).all()
    assert (model.get_layer("second_bn").beta.numpy()[[1, 4]] == 0).all()
    small = tfprune.shrink(model)
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (2, 4)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("ratio", [0.1, 0.35, 0.5, 0.79, 0.8])
def test_counts_are_exact_also_where_gammas_are_equal(ratio):
    model = with_gammas(randomize(two()), {"first_bn": np.ones(4), "second_bn": np.ones(6)})
    fit(model, NetworkSlimming(0.0, ratio), optimizer=still())
    gone = [len(each) for each in pruned(model, "first_bn", "second_bn")]
    assert sum(gone) == int(np.floor(round(10 * ratio, 9)))
    assert pruned(model, "second_bn")[0] == list(range(6 - gone[1], 6))  # of equal ones the later go first


def test_no_layer_is_emptied_and_others_go_instead():
    values = {"first_bn": [0.01, 0.02, 0.03, 0.04], "second_bn": [1, 2, 3, 4, 5, 6]}
    model = with_gammas(randomize(two()), values)
    fit(model, NetworkSlimming(0.0, 0.5), optimizer=still())
    assert pruned(model, "first_bn", "second_bn") == [[0, 1, 2], [0, 1]]
    model = with_gammas(randomize(two()), values)
    with pytest.warns(UserWarning, match="has left 3 of 4 parts of 'first'"):
        fit(model, NetworkSlimming(0.0, 0.4, min_channels=3), optimizer=still())
    assert pruned(model, "first_bn", "second_bn") == [[0], [0, 1, 2]]
    model = with_gammas(randomize(two()), values)
    with pytest.warns(UserWarning, match="asks for 6 of 10 channels, but only 4 can go"):
        fit(model, NetworkSlimming(0.0, 0.6, min_channels=3), optimizer=still())
    assert pruned(model, "first_bn", "second_bn") == [[0], [0, 1, 2]]


def test_tied_layers_lose_the_same_channels_by_the_mean_of_their_gammas():
    model = with_gammas(randomize(residual()), {"stem_bn": [1, 0.1, 3, 2, 4], "branch_bn": [0.1, 0.9, 0.1, -0.1, 1]})
    fit(model, NetworkSlimming(0.0, 0.4), optimizer=still())
    assert pruned(model, "stem_bn", "branch_bn") == [[0, 1], [0, 1]]  # means 0.55, 0.5, 1.55, 1.05, 2.5
    assert tfprune.shrink(model).get_layer("branch").filters == 3


def test_by_default_it_prunes_after_half_of_the_epochs_and_pulls_no_longer():
    for epochs, when in [(1, 1), (3, 2)]:
        history = fit(randomize(two()), NetworkSlimming(1e-3, 0.4), epochs=epochs, samples=8)
        assert history["pruned_channels"] == [0] * (when - 1) + [4] * (epochs - when + 1)
        assert [loss > 0 for loss in history["regularization_loss"]] == [True] * when + [False] * (epochs - when)


def test_rounds_prune_more_each_time_and_never_give_back():
    class Zeros(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.zeros = []

        def on_epoch_end(self, epoch, logs=None):
            self.zeros.append(np.concatenate(gammas(self.model, "first_bn", "second_bn")) == 0)

    zeros = Zeros()
    history = fit(randomize(two()), NetworkSlimming(1e-3, 0.7, prune_at=(1, 3, 4)), zeros, epochs=5)
    assert history["pruned_channels"] == [2, 2, 4, 7, 7]
    for earlier, later in zip(zeros.zeros, zeros.zeros[1:], strict=False):
        assert (later | ~earlier).all()
    assert history["regularization_loss"][3] > 0 == history["regularization_loss"][4]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(residual, {"steps_per_execution": 2}, id="residual"),
        pytest.param(preactivation, {"jit_compile": True}, id="preactivation", marks=pytest.mark.slow),
        pytest.param(densely_connected, {"steps_per_execution": 2}, id="densely_connected", marks=pytest.mark.slow),
    ],
)
def test_pruned_channels_stay_zero_at_every_batch_end_and_the_others_recover(make, options):
    model = randomize(make())
    held, ends = [], []

    class Held(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append([bool((variable.numpy()[~mask] == 0).all()) for variable, mask in held])

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                masks = callback.dead_masks()
                held.extend((v, masks[v.path]) for v in self.model.trainable_variables if v.path in masks)

    callback = NetworkSlimming(1e-3, 0.4, prune_at=1)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.01)
    data = {"validation_data": images(8, seed=9)}
    compiled(model, optimizer, **{"jit_compile": False, **options})
    history = model.fit(*images(32), batch_size=8, epochs=3, callbacks=[callback, Held()], verbose=0, **data).history
    assert len(held) > 2
    recovering = ends[-(8 // options.get("steps_per_execution", 1)) :]
    assert all(all(each) for each in recovering)
    for variable, mask in held:
        assert (variable.numpy()[~mask] == 0).all()
        assert (variable.numpy()[mask] != 0).any()
    total = sum(each.structure.size for each in callback.switched)
    assert history["pruned_channels"] == [int(total * 0.4)] * 3
    assert model.evaluate(*images(8, seed=9), verbose=0)[0] == pytest.approx(history["val_loss"][-1], rel=1e-5)
    assert "apply" not in vars(model.optimizer)

    small = tfprune.shrink(model)
    x, _ = images(8, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5
    assert small.count_params() < model.count_params()


def test_preactivation_prunes_the_inputs_of_each_branch_and_keeps_the_trunk():
    model = randomize(preactivation())
    values = {f"in{i}_bn": 1 + np.arange(6.0) for i in range(2)} | {"last_bn": 1 + np.arange(6.0)}
    values |= {f"mid{i}_bn": 1 + np.arange(4.0) for i in range(2)}
    values["in0_bn"] = np.array([0.1, 1, 1, 1, 0.2, 1])
    values["in1_bn"] = np.array([0.1, 0.3, 1, 1, 1, 1])
    values["last_bn"] = np.array([0.1, 1, 1, 1, 1, 1])
    with_gammas(model, values)
    x, _ = images(8)
    fit(model, NetworkSlimming(0.0, 5 / 26), optimizer=still())
    assert pruned(model, "in0_bn", "in1_bn", "last_bn", "mid0_bn", "mid1_bn") == [[0, 4], [0, 1], [0], [], []]
    assert (model.get_layer("first0").kernel.numpy()[:, :, [0, 4]] == 0).all()
    assert (model.get_layer("classes").kernel.numpy()[0] == 0).all()
    assert (model.get_layer("stem").kernel.numpy()[..., 0] != 0).all()  # no gamma switches the trunk itself
    small = tfprune.shrink(model)
    assert small.get_layer("stem").filters == small.get_layer("second1").filters == 5  # nothing reads channel 0
    assert small.get_layer("first0").kernel.shape[2] == 5  # channel 4 is zero, but the trunk needs it
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


def test_dense_block_shrinks_what_nobody_reads():
    model = randomize(densely_connected())
    values = {
        "in0_bn": [0.1, 1, 1, 1],
        "in1_bn": [0.1, 1, 1, 1, 0.1, 1, 1],
        "last_bn": [0.1, 1, 1, 1, 0.1, 1, 1, 0.1, 1, 1],
    }
    with_gammas(model, values)
    x, _ = images(8)
    fit(model, NetworkSlimming(0.0, 6 / 21), optimizer=still())
    small = tfprune.shrink(model)
    assert [small.get_layer(name).filters for name in ("stem", "grow0", "grow1")] == [3, 2, 2]
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


def test_fitting_again_keeps_what_is_pruned_from_the_first_step():
    model = randomize(two())
    fit(model, NetworkSlimming(1e-3, 0.4), epochs=2)
    before = pruned(model, "first_bn", "second_bn")
    watch = Watch("first_bn", "second_bn")
    history = fit(model, NetworkSlimming(1e-3, 0.4), watch, epochs=2)
    assert history["pruned_channels"] == [4, 4]
    assert all((np.concatenate(seen) == 0).sum() == 4 for seen in watch.seen)
    assert pruned(model, "first_bn", "second_bn") == before
    assert fit(model, NetworkSlimming(1e-3, 0.6), epochs=2)["pruned_channels"] == [6, 6]
    assert all(set(a) <= set(b) for a, b in zip(before, pruned(model, "first_bn", "second_bn"), strict=True))


def test_going_on_after_the_pruning_makes_up_for_it():
    model = compiled(randomize(two()), run_eagerly=True)
    callback = NetworkSlimming(1e-3, 0.6, prune_at=(1, 2, 3))
    history = model.fit(*images(16), batch_size=8, epochs=4, initial_epoch=2, callbacks=[callback], verbose=0).history
    assert history["pruned_channels"] == [6, 6]
    assert (np.concatenate(gammas(model, "first_bn", "second_bn")) == 0).sum() == 6


def test_training_that_stops_early_is_pruned_all_the_same():
    stop = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", min_delta=1e6, patience=1, restore_best_weights=True
    )
    model = randomize(two())
    with pytest.warns(UserWarning, match="Training stopped before the last pruning"):
        fit(model, stop, NetworkSlimming(1e-3, 0.4, prune_at=8), epochs=9, run_eagerly=True)
    assert sum(len(each) for each in pruned(model, "first_bn", "second_bn")) == 4
    assert tfprune.shrink(model).count_params() < model.count_params()


def test_early_stopping_that_restores_weights_from_before_the_pruning():
    stop = keras.callbacks.EarlyStopping(
        monitor="loss", mode="max", min_delta=1e6, patience=1, restore_best_weights=True
    )
    model = randomize(two())
    fit(model, stop, NetworkSlimming(1e-3, 0.4, prune_at=2), epochs=9, run_eagerly=True)
    assert stop.stopped_epoch == 1
    assert sum(len(each) for each in pruned(model, "first_bn", "second_bn")) == 4


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights():
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        models.append(randomize(two()))
        fit(models[-1], NetworkSlimming(1e-3, 0.4), epochs=2, optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    assert same(*map(weights_of, models))


def test_strength_may_be_a_schedule():
    history = fit(
        randomize(two()),
        NetworkSlimming(Polynomial(1e-2, end=2, unit="epochs"), 0.4, prune_at=3),
        epochs=3,
        optimizer=still(),
    )
    losses = history["regularization_loss"]
    assert losses[0] == 0 < losses[1]


@pytest.mark.slow
def test_a_strong_pull_drives_gammas_below_the_threshold():
    model = two((8, 8))
    history = fit(
        model, NetworkSlimming(0.5, 0.5, prune_at=20), epochs=20, samples=64, optimizer=keras.optimizers.SGD(0.02)
    )
    assert history["channels_below_threshold"][-2] > 4
    assert history["regularization_loss"][-2] < history["regularization_loss"][0] / 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1}, "strength must be a number of at least 0"),
        ({"ratio": 1.0}, "ratio is the fraction"),
        ({"ratio": -0.1}, "ratio is the fraction"),
        ({"prune_at": 0}, "prune_at must be"),
        ({"prune_at": (2, 1)}, "prune_at must be"),
        ({"prune_at": ()}, "prune_at must be"),
        ({"prune_at": 1.5}, "prune_at must be"),
        ({"prune_at": True}, "prune_at must be"),
        ({"update": "adam"}, "update must be one of"),
        ({"min_channels": 0}, "min_channels must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NetworkSlimming(**{"strength": 1e-4, "ratio": 0.5, **arguments})


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda m: NetworkSlimming(1e-4, 0.05), "no channel would be pruned: gammas switch 10 channels"),
        (
            lambda m: NetworkSlimming(1e-4, 0.5, prune_at=3),
            "prune_at=3 is after the end of this fit",
        ),
        (lambda m: NetworkSlimming(1e-4, 0.5, exclude=lambda layer: True), "finds nothing to prune"),
        (lambda m: NetworkSlimming(1e-4, 0.5, exclude=[m.get_layer("first")] * 2), None),
    ],
    ids=["ratio", "late", "excluded", "one-excluded"],
)
def test_fits_that_cannot_prune(callback, message):
    model = randomize(two())
    if message is None:
        fit(model, callback(model))
        assert pruned(model, "first_bn") == [[]]
    else:
        with pytest.raises(ValueError, match=message):
            fit(model, callback(model))


def test_models_without_normalization():
    model = keras.Sequential([keras.Input((8, 8, 2)), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(3)])
    with pytest.raises(ValueError, match="has no BatchNormalization, so there is no gamma to prune by"):
        fit(model, NetworkSlimming(1e-4, 0.5))


def test_gammas_that_are_nan():
    model = with_gammas(randomize(two()), {"first_bn": [np.nan] * 4})
    with pytest.raises(ValueError, match="NaN"):
        fit(model, NetworkSlimming(1e-4, 0.5), optimizer=still())
