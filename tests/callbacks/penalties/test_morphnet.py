"""MorphNet: prices by hand, the step by hand, and that costly layers lose more."""

import keras
import numpy as np
import pytest
from networks import compiled, images, outputs, preactivation, randomize, relative_difference, residual

import tfprune
from tfprune import Budget, profile, widen
from tfprune.callbacks import MorphNet

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:MorphNet has left")


def pair(first=4, second=6):
    """Two normalized convolutions: 8x8 and 4x4 positions."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            L.Conv2D(first, 3, padding="same", use_bias=False, name="first"),
            L.BatchNormalization(name="first_bn"),
            L.ReLU(),
            L.Conv2D(second, 3, strides=2, padding="same", use_bias=False, name="second"),
            L.BatchNormalization(name="second_bn"),
            L.ReLU(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, name="classes"),
        ]
    )


def fit(model, callback, epochs=1, samples=8, optimizer=None, **options):
    # A step an epoch: as few of them are made faster than traced.
    options = {"jit_compile": False, "run_eagerly": epochs <= 3, **options}
    compiled(model, optimizer or keras.optimizers.SGD(0.0), **options)
    return model.fit(
        *images(samples), batch_size=8, epochs=epochs, callbacks=[callback], verbose=0, shuffle=False
    ).history


def step(model, callback):
    """How far one step of SGD with a rate of 1 moves each gamma, without the loss: all gradients but the pull are 0."""
    model.get_layer("classes").kernel.assign(np.zeros(model.get_layer("classes").kernel.shape))
    bns = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    before = {layer.name: layer.gamma.numpy() for layer in bns}
    moved = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            moved.update({layer.name: before[layer.name] - layer.gamma.numpy() for layer in bns})

    compiled(model, keras.optimizers.SGD(1.0), run_eagerly=True)
    history = model.fit(*images(8), batch_size=8, verbose=0, callbacks=[callback, Watch()]).history
    return moved, history


def test_the_pull_is_what_the_channel_costs_in_the_layer_that_makes_it_and_in_those_that_read_it():
    model = pair()
    alive_first, alive_second = 3, 4
    model.get_layer("first_bn").gamma.assign([0.5, -0.5, 0.01, 1.0])
    model.get_layer("second_bn").gamma.assign([1.0, -0.3, 0.001, 0.5, 0.0, 2.0])
    first, second, classes = 64 * 9, 16 * 9, 1  # C of each layer
    total = first * 2 * 4 + second * 4 * 6 + classes * 6 * 3
    price_first = (first * 2 + second * alive_second) / total
    price_second = (second * alive_first + classes * 3) / total
    signs = [np.sign(model.get_layer(name).gamma.numpy()) for name in ("first_bn", "second_bn")]
    moved, _ = step(model, MorphNet(0.1))
    np.testing.assert_allclose(moved["first_bn"], 0.1 * price_first * signs[0], atol=1e-7)
    np.testing.assert_allclose(moved["second_bn"], 0.1 * price_second * signs[1], atol=1e-7)


def test_the_logged_penalty_and_cost():
    model = pair()
    model.get_layer("first_bn").gamma.assign([0.5, -0.5, 0.01, 1.0])
    model.get_layer("second_bn").gamma.assign([1.0, -0.3, 0.001, 0.5, 0.0, 2.0])
    history = fit(model, MorphNet(0.5))
    total = 64 * 9 * 2 * 4 + 16 * 9 * 4 * 6 + 6 * 3
    penalty = (64 * 9 * 2 + 16 * 9 * 4) * 2.01 + (16 * 9 * 3 + 3) * 3.801
    assert history["regularization_loss"] == [pytest.approx(0.5 * penalty / total)]
    assert history["channels_below_threshold"] == [3]
    assert history["relative_cost"] == [pytest.approx((64 * 9 * 2 * 3 + 16 * 9 * 3 * 4 + 4 * 3) / total)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("make", [pair, residual, preactivation])
@pytest.mark.parametrize("cost", ["macs", "parameters"])
def test_the_logged_cost_is_that_of_the_shrunken_model(make, cost):
    model = randomize(make())
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            size = layer.gamma.shape[0]
            if make is preactivation and layer.name.startswith(("in", "last")):
                dead = np.arange(size) < 2  # the same everywhere, or the trunk would stay
            elif make is residual:
                dead = np.arange(size) % 2 == 0
            else:
                dead = random.permutation(size) < size // 2
            layer.gamma.assign(np.where(dead, 0.001, layer.gamma.numpy()))
    history = fit(model, MorphNet(1e-9, cost=cost))
    small = tfprune.shrink(model)
    x, _ = images(8)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5
    relative = getattr(profile(small), cost) / getattr(profile(model), cost)
    if make is preactivation:  # what makes the trunk has no gamma, and does not count
        assert relative < history["relative_cost"][0] < 1
    else:
        assert history["relative_cost"] == [pytest.approx(relative)]


def test_tied_layers_the_largest_gamma_is_pulled_and_keeps_the_channel_alive():
    model = residual()
    model.get_layer("stem_bn").gamma.assign([0.5, 0.001, 0.3, 0.001, -1.0])
    model.get_layer("branch_bn").gamma.assign([0.2, 0.001, -0.7, 0.4, 1.0])
    moved, _ = step(model, MorphNet(0.01))
    stem, branch = 64 * 9 * 2, 64 * 9  # C of the branch, times what is alive on the other side
    total = stem * 5 + branch * 25 + 64 * 5 * 7 + 7 * 3
    price = (stem + 2 * branch * 4 + 64 * 7) / total * 0.01
    np.testing.assert_allclose(moved["stem_bn"], price * np.array([1, 0.5, 0, 0, -0.5]), atol=1e-6)
    np.testing.assert_allclose(moved["branch_bn"], price * np.array([0, 0.5, -1, 1, 0.5]), atol=1e-6)
    assert tfprune.shrink(model).get_layer("stem").filters == 4


def test_costly_layers_lose_more():
    keras.utils.set_random_seed(4)
    model = pair(8, 8)
    table = {model.get_layer("first"): 100.0, model.get_layer("second"): 1.0}
    callback = MorphNet(4.0, cost=table, threshold=0.05)
    fit(model, callback, epochs=12, samples=64, optimizer=keras.optimizers.SGD(0.1))
    small = tfprune.shrink(model)
    widths = [small.get_layer(name).filters for name in ("first", "second")]
    assert widths[0] < widths[1]
    wide = widen(small, budget=Budget(macs=float(profile(model).macs)))
    assert wide.get_layer("second").filters > 8


def test_a_table_of_costs_and_a_function_agree():
    model = pair()
    model.get_layer("first_bn").gamma.assign([1, 1, 0, 0])
    table = {model.get_layer("first"): 3.0, model.get_layer("second"): 5}
    by_name = {layer.name: cost for layer, cost in table.items()}
    for cost in (table, lambda layer: by_name.get(layer.name, 0)):
        history = fit(model, MorphNet(1e-9, cost=cost))
        assert history["relative_cost"] == [pytest.approx(0.5)]


def test_what_is_alive_is_counted_anew_each_epoch():
    model = pair()
    model.get_layer("second_bn").gamma.assign([0.02, 0.02, 1, 1, 1, 1])
    callback = MorphNet(1.0)
    prices = []

    class Prices(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            prices.append(float(callback._price[0].numpy()[0]))
            model.get_layer("second_bn").gamma.assign([0.001, 0.001, 1, 1, 1, 1])

    compiled(model, keras.optimizers.SGD(0.0), jit_compile=False)
    model.fit(*images(8), epochs=2, verbose=0, callbacks=[callback, Prices()])
    total = 64 * 9 * 2 * 4 + 16 * 9 * 4 * 6 + 6 * 3
    np.testing.assert_allclose(prices, [(1152 + 144 * 6) / total, (1152 + 144 * 4) / total], rtol=1e-6)


def test_min_channels_stay_and_dead_channels_are_zero_throughout():
    model = randomize(pair())
    model.get_layer("first_bn").gamma.assign(np.full(4, 0.001))
    fit(model, MorphNet(1e-9, min_channels=2))
    assert np.flatnonzero(model.get_layer("first_bn").gamma.numpy()).tolist() == [0, 1]
    for name, variable in (("first", "kernel"), ("first_bn", "beta")):
        value = getattr(model.get_layer(name), variable).numpy()
        assert (value[..., 2:] == 0).all()
        assert (value[..., :2] != 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": -1}, "strength must be"),
        ({"threshold": -1}, "threshold must be"),
        ({"cost": "latency"}, "cost must be 'macs', 'parameters'"),
        ({"cost": None}, "cost must be 'macs', 'parameters'"),
        ({"min_channels": 0}, "min_channels must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MorphNet(**{"strength": 1.0, **arguments})


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda model: {L.Dense(3, name="foreign"): 1.0}, r"names layers that .* does not call: \['foreign'\]"),
        (lambda model: {model.get_layer("first"): -1.0}, "It is -1.0 for 'first'"),
        (lambda model: lambda layer: float("nan"), "It is nan for"),
        (lambda model: lambda layer: 0, "cost is 0 for the whole model"),
        (lambda model: {}, "cost is 0 for the whole model"),
    ],
)
def test_bad_costs(cost, message):
    model = pair()
    with pytest.raises(ValueError, match=message):
        fit(model, MorphNet(1.0, cost=cost(model)))


def test_an_input_of_unknown_size_has_no_macs():
    inputs = keras.Input((None, None, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match="so its cost is unknown"):
        fit(model, MorphNet(1.0))
    fit(model, MorphNet(1e-9, cost="parameters"))
