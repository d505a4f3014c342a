"""Repair without training: what is lost and can be computed from the rest comes back, and nothing else is harmed."""

import keras
import numpy as np
import pytest
from networks import chain, images, outputs, randomize, relative_difference, residual, same, weights_of

import tfprune
from tfprune import reconstruct
from tfprune.reconstruction.least_squares import NormalEquations

L = keras.layers


@pytest.fixture(scope="module")
def data():
    return images(96)[0]


def normalized(model, x):
    """With random weights and statistics that fit them."""
    randomize(model)
    if any(isinstance(layer, L.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, x)
    return model


def without(model, name, gone):
    (group,) = [group for group in tfprune.channel_groups(model).free if group.name == name]
    return tfprune.shrink(model, keep={group: np.setdiff1d(np.arange(group.size), gone)})


def copied(model, name, norm, pairs):
    """Make channels linear copies of others, before the activation: twice as large."""
    for source, target in pairs:
        for variable in model.get_layer(name).variables:
            value = variable.numpy()
            value[..., target] = value[..., source]
            variable.assign(value)
        for factor, variable in zip((2, 2, 1, 1), model.get_layer(norm).variables if norm else (), strict=False):
            value = variable.numpy()
            value[target] = factor * value[source]
            variable.assign(value)


def test_channels_that_others_carry_come_back_whole(data):
    model = normalized(chain(filters=(6, 6)), data)
    copied(model, "first", "first_bn", [(0, 3), (1, 4)])
    small = without(model, "first", [3, 4])
    expected, lost = outputs(model, data), outputs(small, data)
    report = reconstruct(small, model, data, ridge=1e-9)
    assert relative_difference(expected, lost) > 0.05
    assert relative_difference(expected, outputs(small, data)) < 1e-4
    (second,) = report.refitted
    assert (second.name, second.unknowns) == ("second", 36)
    assert second.error_before > 1e-3 > 1e-9 > second.error_after
    assert set(report.left) == {"first", "classes"}


def test_an_addition_of_a_number_is_no_shortcut():
    inputs = keras.Input((6,))
    x = L.Dense(8, name="hidden")(inputs)
    model = normalized(keras.Model(inputs, L.Dense(3, name="classes")(L.Dense(6, name="plus")(x) + 3.0)), None)
    small = without(model, "hidden", [0, 1])
    report = reconstruct(small, model, np.random.default_rng(0).normal(size=(64, 6)).astype("float32"))
    assert [(layer.name, layer.shortcut) for layer in report.refitted] == [("plus", False), ("classes", False)]


@pytest.fixture(scope="module")
def pruned(data):
    """A residual network and what is left of it, with the weights that it has then."""
    model = normalized(residual(width=6, last=8, normalized=True), data)
    small = tfprune.prune_channels(model, 0.5)
    return model, small, weights_of(small)


def test_a_residual_network_comes_nearer_without_labels(pruned, data):
    model, small, weights = pruned
    expected, dense = outputs(model, data), weights_of(model)
    tfprune.recalibrate(small, data)
    recalibrated = relative_difference(expected, outputs(small, data))
    small.set_weights(weights)
    report = reconstruct(small, model, data)
    assert relative_difference(expected, outputs(small, data)) < 0.7 * recalibrated
    assert [(layer.name, layer.shortcut) for layer in report.refitted] == [
        ("branch", True),
        ("head", False),
        ("classes", False),
    ]
    assert all(layer.error_after < layer.error_before for layer in report.refitted)
    assert same(dense, weights_of(model))
    assert "with the shortcut" in str(report)
    assert report.to_dict()["refitted"][0]["unknowns"] == 27
    refitted = weights_of(small)

    small.set_weights(weights)
    reconstruct(small, model, data)
    assert same(refitted, weights_of(small))  # the same seed, the same positions
    small.set_weights(weights)
    reconstruct(small, model, data, seed=1)
    assert not same(refitted, weights_of(small))


@pytest.mark.parametrize(("layers", "changed"), [("head", {"classes"}), ("body", {"branch", "head"})])
def test_only_the_head_or_the_body(pruned, data, layers, changed):
    model, small, weights = pruned
    small.set_weights(weights)
    before = {layer.name: layer.get_weights()[:1] for layer in small.layers if hasattr(layer, "kernel")}
    report = reconstruct(small, model, data, layers=layers)
    assert {layer.name for layer in report.refitted} == changed
    assert {name for name, kernel in before.items() if not same(kernel, small.get_layer(name).get_weights()[:1])} == (
        changed
    )


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_on_the_way_leaves_the_model_as_it_was(pruned, data, monkeypatch, error):
    model, small, weights = pruned
    small.set_weights(weights)
    solve, solved = NormalEquations.solution, []

    def fails_at_the_second(self, present, ridge):
        solved.append(1)
        if len(solved) == 2:
            raise error("no")
        return solve(self, present, ridge)

    monkeypatch.setattr(NormalEquations, "solution", fails_at_the_second)
    with pytest.raises(error, match="no"):
        reconstruct(small, model, data)
    assert len(solved) == 2
    assert same(weights, weights_of(small))


def test_what_is_refused(pruned, data):
    model, small, weights = pruned
    small.set_weights(weights)
    broken = data.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        reconstruct(small, model, broken)
    with pytest.raises(ValueError, match="given twice"):
        reconstruct(small, small, data)
    with pytest.raises(ValueError, match="not made from"):
        reconstruct(small, chain(), data)
    with pytest.raises(ValueError, match="layers must be one of"):
        reconstruct(small, model, data, layers="convolutions")
    with pytest.raises(ValueError, match="ridge must be above 0"):
        reconstruct(small, model, data, ridge=0.0)
    with pytest.raises(TypeError, match="Keras 3 model"):
        reconstruct("small.keras", model, data)
    assert same(weights, weights_of(small))


def test_numbers_that_become_infinite_are_refused(pruned, data):
    model, small, _ = pruned
    with pytest.raises(ValueError, match="'stem_bn' gets or makes numbers that are not finite"):
        reconstruct(small, model, data.clip(-3, 3) * np.float32(1e38))


def test_few_samples_are_told(pruned, data):
    model, small, weights = pruned
    small.set_weights(weights)
    with pytest.warns(UserWarning, match="'classes' has 4 numbers to fit .* 2 positions.* at least 4 samples") as told:
        reconstruct(small, model, data, max_samples=2, layers="head")
    assert [each.filename for each in told if each.category is UserWarning] == [__file__]
    assert all(np.isfinite(weight).all() for weight in weights_of(small))


def test_the_last_summand_makes_up_for_what_the_others_lack():
    inputs = keras.Input((5,), name="x")
    lacking = L.Dense(4, name="lacking")(L.Dense(8, "relu", name="hidden")(inputs))
    later = L.Dense(4, name="later")(L.Dense(6, "relu", name="a")(L.Dense(6, "relu", name="b")(inputs)))
    model = keras.Model(inputs, L.Dense(2, name="out")(L.Add()([lacking, later])))
    x = randomize(model) and np.random.default_rng(0).normal(size=(400, 5)).astype("float32")
    small = without(model, "hidden", [0, 1, 2, 3])
    report = reconstruct(small, model, x, ridge=1e-9)
    assert [(layer.name, layer.shortcut) for layer in report.refitted][:2] == [("lacking", False), ("later", True)]
    hidden, wanted, part = (
        np.asarray(keras.Model(each.input, each.get_layer(name).output)(x))
        for each, name in ((small, "a"), (model, "add"), (small, "lacking"))
    )
    rows = np.hstack([hidden, np.ones((len(x), 1))])
    expected = np.linalg.lstsq(rows, wanted - part, rcond=None)[0]
    np.testing.assert_allclose(small.get_layer("later").kernel.numpy(), expected[:-1], atol=1e-3)
    np.testing.assert_allclose(small.get_layer("later").bias.numpy(), expected[-1], atol=1e-3)


def test_every_kind_of_layer_is_refitted_or_named():
    inputs = keras.Input((12, 4), name="x")
    twice = L.Dense(8, name="twice")
    block = keras.Sequential([keras.Input((12, 8)), L.Conv1D(8, 3, padding="same", name="inner")], name="block")
    x = block(twice(L.ReLU()(twice(L.Dense(8, name="first")(inputs)))))
    x = L.TimeDistributed(L.Dense(6, name="each"), name="steps")(L.DepthwiseConv1D(3, name="depthwise")(x))
    x = L.LSTM(5, name="lstm")(L.SeparableConv1D(7, 3, name="separable")(x))
    model = keras.Model(inputs, L.Dense(2, "softmax", name="out")(x))
    randomize(model)
    small = tfprune.prune_channels(model, 0.4)
    pruned = small.get_layer("block").get_layer("inner").kernel
    x = np.random.default_rng(0).normal(size=(64, 12, 4)).astype("float32")
    report = reconstruct(small, model, x)
    assert [layer.name for layer in report.refitted] == ["block/inner", "depthwise", "separable", "out"]
    assert {name: reason for name, reason in report.left.items() if name != "first"} == {
        "twice": "it is called more than once",
        "steps/each": "it works inside another layer",
        "lstm/lstm_cell": "it works inside another layer",
    }
    pruned.assign(np.where(np.arange(3)[:, None, None] == 0, np.float32(-0.0), pruned.numpy()))
    assert reconstruct(small, model, x).left["block/inner"] == "single weights of it are pruned"


def test_with_an_infinite_ridge_biases_alone_take_up_the_means():
    model = randomize(keras.Sequential([keras.Input((5,)), L.Dense(6, "relu", name="hidden"), L.Dense(3, name="out")]))
    x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    small = without(model, "hidden", [1, 4])
    report = reconstruct(small, model, x, ridge=np.inf)
    hidden, out = np.asarray(model.layers[0](x)), model.layers[1]
    expected = out.bias.numpy() + hidden[:, [1, 4]].mean(axis=0) @ out.kernel.numpy()[[1, 4]]
    np.testing.assert_allclose(small.layers[1].bias.numpy(), expected, rtol=1e-4)
    np.testing.assert_array_equal(small.layers[1].kernel.numpy(), out.kernel.numpy()[[0, 2, 3, 5]])
    assert report.refitted[0].error_after < report.refitted[0].error_before
