"""GroupLasso against formulas written out in NumPy: one real training step, finite differences, axes, truncation."""

import keras
import numpy as np
import pytest
from networks import compiled, images, outputs, randomize, relative_difference, residual

import tfprune
from tfprune.callbacks import GroupLasso
from tfprune.graph import channel_groups
from tfprune.schedules import Cosine

L = keras.layers
RATE, STRENGTH = 0.1, 0.3


def network():
    """Two hidden layers, linear, so that NumPy can take their gradients; the first is read by the second."""
    return randomize(
        keras.Sequential([keras.Input((3,)), L.Dense(4, name="a"), L.Dense(5, name="b"), L.Dense(2, name="out")])
    )


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 3)).astype("float32"), random.normal(size=(8, 2)).astype("float32")


def trained(callback, optimizer, steps=1, **options):
    """The weights before and after a real `fit` with the callback."""
    model = network()
    model.compile(optimizer, "mse", **{"jit_compile": False, **options})
    before = [weight.numpy().astype("float64") for weight in model.weights]
    x, y = (np.concatenate([values] * steps) for values in data())
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    return before, [weight.numpy() for weight in model.weights]


def one_step(callback, momentum=0.0):
    """The weights before, the gradients there in NumPy, and the weights after a real step with the callback."""
    before, after = trained(callback, keras.optimizers.SGD(RATE, momentum=momentum), run_eagerly=True)
    return before, gradients_of(before, *data()), after


def gradients_of(weights, x, y):
    a, a_bias, b, b_bias, out, out_bias = weights
    first = x @ a + a_bias
    second = first @ b + b_bias
    error = 2 * (second @ out + out_bias - y) / y.size
    back = error @ out.T
    first_back = back @ b.T
    return [x.T @ first_back, first_back.sum(0), first.T @ back, back.sum(0), second.T @ error, error.sum(0)]


def coupled_norms(weights):
    """Of the channels of both hidden layers: kernel column, bias, and row of the next kernel."""
    a, a_bias, b, b_bias, out, _ = weights
    first = np.sqrt((a**2).sum(0) + a_bias**2 + (b**2).sum(1))
    second = np.sqrt((b**2).sum(0) + b_bias**2 + (out**2).sum(1))
    return (first, 3 + 1 + 5), (second, 4 + 1 + 2)


def factored(weights, first, second):
    a, a_bias, b, b_bias, out, out_bias = weights
    return [a * first, a_bias * first, b * first[:, None] * second, b_bias * second, out * second[:, None], out_bias]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("weighting", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.75])
def test_a_proximal_step_is_the_formula(weighting, momentum):
    callback = GroupLasso(STRENGTH, size_weighting=weighting)
    before, gradients, after = one_step(callback, momentum)
    stepped = [weight - RATE * gradient for weight, gradient in zip(before, gradients, strict=True)]
    factors = []
    for norms, size in coupled_norms(stepped):
        length = RATE / (1 - momentum) * STRENGTH * (np.sqrt(size) if weighting else 1)
        factor = np.maximum(0, 1 - length / norms)
        assert ((factor > 0) | (norms < length)).all()
        factor[norms.argmax()] = factor.max() or 1.0
        factors.append(factor)
    assert_equal(after, factored(stepped, *factors))


@pytest.mark.parametrize(
    ("every", "options"),
    [
        (None, {"jit_compile": True}),
        (2, {"steps_per_execution": 3}),
        pytest.param(None, {}, marks=pytest.mark.slow),
        pytest.param(None, {"steps_per_execution": 3}, marks=pytest.mark.slow),
        pytest.param(2, {}, marks=pytest.mark.slow),
        pytest.param(2, {"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_each_proximal_step_takes_its_own_learning_rate(every, options):
    # Keras counts a schedule in calls of the optimizer, also where only every second call updates weights.
    schedule = keras.optimizers.schedules.ExponentialDecay(RATE, every or 1, decay_rate=0.25, staircase=True)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=every)
    weights, after = trained(GroupLasso(STRENGTH), optimizer, steps=3 * (every or 1), **options)
    for rate in (RATE, RATE / 4, RATE / 16):
        gradients = gradients_of(weights, *data())
        weights = [weight - rate * gradient for weight, gradient in zip(weights, gradients, strict=True)]
        found = coupled_norms(weights)
        factors = [np.maximum(0, 1 - rate * STRENGTH * np.sqrt(size) / norms) for norms, size in found]
        assert all((factor > 0).any() and (factor < 1).all() for factor in factors)
        weights = factored(weights, *factors)
    assert_equal(after, weights)


@pytest.mark.parametrize("weighting", [True, False])
def test_a_subgradient_step_is_the_formula(weighting):
    before, gradients, after = one_step(GroupLasso(STRENGTH, update="subgradient", size_weighting=weighting))
    (first, first_size), (second, second_size) = coupled_norms(before)
    weights = [np.sqrt(size) if weighting else 1.0 for size in (first_size, second_size)]
    pulls = [STRENGTH * weights[0] / first, STRENGTH * weights[1] / second]
    # The kernel between the layers belongs to both.
    rates = [pulls[0], pulls[0], pulls[0][:, None] + pulls[1], pulls[1], pulls[1][:, None], 0.0]
    expected = [w - RATE * (g + r * w) for w, g, r in zip(before, gradients, rates, strict=True)]
    assert_equal(after, expected)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("parts", ["coupled", "filter", "channel", "shape"])
def test_the_subgradient_is_that_of_the_logged_penalty(parts):
    """Finite differences of `penalty`, against what one step of a loss without gradient moves."""
    model = network()
    model.compile(
        keras.optimizers.SGD(1.0), loss=lambda y, prediction: 0.0 * keras.ops.sum(prediction), run_eagerly=True
    )
    before = [weight.numpy() for weight in model.weights]
    callback = GroupLasso(0.01, parts=parts, update="subgradient")
    model.fit(np.ones((1, 3)), np.ones((1, 2)), verbose=0, callbacks=[callback])
    moved = [(old - weight.numpy()) / 0.01 for old, weight in zip(before, model.weights, strict=True)]
    for weight, old in zip(model.weights, before, strict=True):
        weight.assign(old)
    for weight, old, gradient in zip(model.weights, before, moved, strict=True):
        for place in list(np.ndindex(old.shape))[::3]:
            ends = []
            for step in (0.01, -0.01):
                nudged = old.copy()
                nudged[place] += step
                weight.assign(nudged)
                ends.append(callback.penalty())
            weight.assign(old)
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 0.02, abs=3e-3)


def test_the_parts_of_convolutions_have_the_axes_of_the_paper():
    model = compiled(randomize(residual()))
    sizes = {}
    for parts in ("coupled", "filter", "channel", "shape"):
        callback = GroupLasso(0.1, parts=parts)
        callback.set_model(model)
        callback.set_params({"epochs": 1})
        callback.on_train_begin()
        sizes[parts] = {structure.name: structure.size for structure in callback.structures}
        kernel = model.get_layer("branch").kernel.numpy()
        branch = [s for s in callback.structures if s.name == "branch"]
        axes = {"filter": (0, 1, 2), "channel": (0, 1, 3), "shape": (3,)}
        for structure in branch:
            squares = np.sort((kernel**2).sum(axis=axes[parts]).ravel())
            np.testing.assert_allclose(
                np.sort(structure.squared_norms(keras.ops.convert_to_tensor)), squares, rtol=1e-5
            )
    assert sizes["coupled"] == {"stem": 5, "head": 7}
    assert sizes["filter"] == {"stem": 5, "branch": 5, "head": 7}
    assert sizes["channel"] == {"branch": 5, "head": 5, "classes": 7}
    assert sizes["shape"] == {"branch": 45, "head": 5, "classes": 7}


def test_excluded_layers_stay_as_they_are():
    model = compiled(randomize(residual()))
    for parts in ("filter", "channel", "shape"):
        callback = GroupLasso(0.1, parts=parts, exclude=[model.get_layer("head")])
        callback.set_model(model)
        callback.set_params({"epochs": 1})
        callback.on_train_begin()
        assert "head" not in {structure.name for structure in callback.structures}


def test_the_authors_truncation_makes_zeros_and_spares_min_channels():
    model = network()
    model.get_layer("a").kernel.assign(np.full((3, 4), 1e-6))
    model.get_layer("a").bias.assign(np.array([1e-6, -1e-6, 2e-6, 1e-6]))
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    callback = GroupLasso(1e-3, parts="filter", update="subgradient")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=[callback])
    assert (model.get_layer("a").kernel.numpy() != 0).all()  # no step, no truncation
    model.compile(keras.optimizers.SGD(1e-9), "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match="has left 1 of 4 parts of 'a'"):
        model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=[callback])
    assert (model.get_layer("a").kernel.numpy() != 0).all(axis=0).tolist() == [True, False, False, False]
    assert (model.get_layer("a").bias.numpy() != 0).tolist() == [True, False, False, False]
    assert (model.get_layer("b").kernel.numpy() != 0).all()


def test_channels_that_nothing_reads_are_made_zero_when_training_ends_and_removed():
    model = compiled(randomize(residual()), keras.optimizers.SGD(1e-3), run_eagerly=True)
    for name in ("branch", "head"):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel.numpy() * np.array([1.0, 1e-6, 1.0, 1e-6, 1.0])[:, None])
    model.fit(*images(8), batch_size=8, verbose=0, callbacks=[GroupLasso(0.1, parts="channel")])
    assert (model.get_layer("stem").kernel.numpy()[..., [1, 3]] == 0).all()
    assert (model.get_layer("branch_bn").beta.numpy()[[1, 3]] == 0).all()
    small = tfprune.shrink(model)
    assert [group.size for group in channel_groups(small).free] == [3, 7]
    x, _ = images(8, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


def test_min_channels_of_more_than_one():
    model = network()
    model.compile(keras.optimizers.SGD(RATE), "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match="has left 3 of 4 parts of 'a'|has left 3 of 5 parts of 'b'"):
        model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=[GroupLasso(1e3, min_channels=3)])
    small = tfprune.shrink(model)
    assert [layer.units for layer in small.layers] == [3, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": "block"}, "parts must be one of"),
        ({"update": "adam"}, "update must be one of"),
        ({"threshold": -1.0}, "threshold must be a number of at least 0"),
        ({"min_channels": 0}, "min_channels must be a whole number"),
        ({"min_channels": True}, "min_channels must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupLasso(0.1, **arguments)


def test_a_schedule_over_an_unknown_number_of_steps_wants_an_end():
    callback = GroupLasso(Cosine(0.1))
    callback.set_model(compiled(randomize(residual())))
    callback.set_params({"epochs": 2, "steps": None})
    with pytest.raises(ValueError, match=r"number of steps per epoch is unknown. Give the schedule an `end`"):
        callback.on_train_begin()
