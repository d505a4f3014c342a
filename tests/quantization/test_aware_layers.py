"""Rounding by hand, and what the layers that round do at the edges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfprune.quantization.aware_layers import KeepFloat, QuantizeActivation, QuantizeWeights
from tfprune.quantization.rounding import fake_quantize_weights


def rounded_by_numpy(weights, axes):
    others = tuple(axis for axis in range(weights.ndim) if axis - weights.ndim not in axes)
    largest = np.abs(weights.astype(np.float64)).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0) / 127
    return np.sign(weights) * np.floor(np.abs(weights) / scale + 0.5) * scale


def test_rounding_by_hand():
    weights = np.array([[127.0, -2.0], [0.5, 1.0], [-0.5, 0.0], [63.5, -1.0], [-63.5, 0.001]], "float32")
    # Halves go away from zero; the second column has the scale 2/127.
    expected = [[127, -2], [1, 128 / 127], [-1, 0], [64, -128 / 127], [-64, 0]]
    np.testing.assert_allclose(fake_quantize_weights(weights, (-1,)), expected, rtol=1e-6)
    assert np.array_equal(fake_quantize_weights(weights, ())[:, 1], [-2, 1, 0, -1, 0])


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((3, 3, 4, 5), (-1,)), ((3, 3, 4, 2), (-2, -1)), ((3, 3, 5, 4), (-2,)), ((6, 5), ()), ((3, 4, 5), (-1,))],
)
def test_each_channel_has_its_scale(shape, axes):
    weights = np.random.default_rng(0).normal(size=shape).astype("float32")
    weights *= np.random.default_rng(1).uniform(0.01, 10, shape[-2:])
    np.testing.assert_allclose(fake_quantize_weights(weights, axes), rounded_by_numpy(weights, axes), rtol=1e-5)


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_the_gradient_passes_unchanged_at_the_largest_weight_too(seed, size):
    weights = tf.constant((np.random.default_rng(seed).normal(size=(3, 8, 16)) * size).astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        total = tf.reduce_sum(fake_quantize_weights(weights, (-1,)))
    assert (tape.gradient(total, weights).numpy() == 1).all()


def test_a_channel_of_zeros_stays_and_takes_gradient():
    weights = tf.zeros((3, 2))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        rounded = fake_quantize_weights(weights, (-1,))
    assert (rounded.numpy() == 0).all()
    assert (tape.gradient(rounded, weights).numpy() == 1).all()


def test_mixed_precision_rounds_the_float32_kernel():
    keras.config.set_dtype_policy("mixed_float16")
    inner = keras.layers.Dense(16, use_bias=False)
    layer = QuantizeWeights(inner, {"kernel": ()})
    found, _ = layer(np.eye(64, dtype="float32"))
    keras.config.set_dtype_policy("float32")
    assert found.dtype == "float16"
    levels = np.abs(inner.kernel.numpy()).max() / 127
    expected = rounded_by_numpy(inner.kernel.numpy(), ())
    assert np.array_equal(np.rint(np.asarray(found) / levels), np.rint(expected / levels))


def numbers(*values):
    return np.array([values], "float32")


def rounded(layer, values, **options):
    return np.asarray(layer(values, **options)[0])


def test_the_range_follows_training_by_hand():
    layer = QuantizeActivation(momentum=0.5)
    assert layer.range is None
    assert np.array_equal(rounded(layer, numbers(-7, 9)), numbers(-7, 9))  # nothing seen: unchanged
    assert layer.range is None
    layer(numbers(-1, 0.5, 3), training=True)
    assert layer.range == (-1, 3)
    layer(numbers(-2, 5), training=True)
    assert layer.range == (-1.5, 4)
    layer(numbers(1, 2), training=True)  # zero is always in it
    assert layer.range == (-0.75, 3)
    layer(numbers(-9, 9))
    assert layer.range == (-0.75, 3)


@given(st.floats(-100, 0), st.floats(0.001, 100))
def test_zero_is_exact_and_numbers_outside_are_cut_off(low, high):
    layer = QuantizeActivation(fixed=(low, high))
    found = rounded(layer, numbers(0, low - 1000, high + 1000, *np.linspace(low, high, 50)))[0]
    step = (high - low) / 255
    assert found[0] == 0
    assert found[1] == pytest.approx(low, abs=step)
    assert found[2] == pytest.approx(high, abs=step)
    assert np.abs(found[3:] - np.linspace(low, high, 50)).max() <= step * 1.01
    assert len(np.unique(found)) <= 256


@pytest.mark.parametrize("fixed", [None, (-1.0, 127 / 128)])
def test_gradients_pass_unchanged_in_training(fixed):
    layer, x = QuantizeActivation(fixed=fixed), tf.constant([[-1.5, -0.5, 0.0, 0.9, 1.5]])
    layer(x / 2, training=True)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, training=True)[0] * [1.0, 2.0, 3.0, 4.0, 5.0])
    assert tape.gradient(total, x).numpy().tolist() == [[1, 2, 3, 4, 5]]


def test_the_step_is_that_between_the_levels():
    layer = QuantizeActivation()
    values, step = layer(numbers(-1.0, 1.55), training=True)
    assert float(step) == pytest.approx(0.01)
    assert np.allclose(np.asarray(values) / 0.01, [[-100, 155]])
    assert float(layer(numbers(9.0))[1]) == pytest.approx(0.01)


def test_halves_of_averages_go_away_from_the_stored_zero():
    layer = QuantizeActivation(fixed=(-1.0, 127 / 128))  # steps of 1/128, stored as they are
    halves = numbers(0.5, 1.5, -0.5, -1.5, 0.25) / 128
    assert (rounded(layer, halves, pooled=True) * 128).tolist() == [[1, 2, -1, -2, 0]]
    behind_relu = QuantizeActivation(fixed=(0.0, 255.0))  # 0 is stored as -128, 128 as 0
    assert rounded(behind_relu, numbers(0.5, 1.5, 127.5, 128.5), pooled=True).tolist() == [[0, 1, 127, 129]]


@pytest.mark.parametrize("normalized", [False, True])
def test_the_bias_is_what_int32_holds(normalized):
    generator = np.random.default_rng(0)
    inner = keras.layers.Conv2D(4, 3, bias_initializer=keras.initializers.RandomNormal(seed=1))
    normalization = keras.layers.BatchNormalization() if normalized else None
    layer = QuantizeWeights(inner, {"kernel": (-1,)}, normalization=normalization)
    step = np.float32(0.05)  # coarse, so that rounding shows
    levels = generator.integers(-128, 128, (2, 6, 6, 3))
    images = (levels * step).astype("float32")
    layer(images, step=step)
    scale, shift = np.ones(4), np.zeros(4)
    if normalization is not None:
        for variable in normalization.variables:
            variable.assign(generator.uniform(0.5, 1.5, 4))
        gamma, beta, mean, variance = (variable.numpy().astype(np.float64) for variable in normalization.variables)
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        shift = beta - mean * scale
    kernel, bias = inner.kernel.numpy() * scale, inner.bias.numpy() * scale + shift
    units = np.abs(kernel).max(axis=(0, 1, 2)) / 127
    whole = np.sign(kernel) * np.floor(np.abs(kernel) / units + 0.5)
    sums = tf.nn.conv2d(levels.astype(np.float64), whole, 1, "VALID").numpy() + np.rint(bias / (step * units))
    found, unit = layer(images, step=step)
    np.testing.assert_allclose(unit, step * units, rtol=1e-6)
    assert np.array_equal(np.asarray(found), sums.astype("float32") * np.asarray(unit))  # to the last bit
    apart = np.abs(np.asarray(found) - np.asarray(layer(images)[0])).max()
    assert 1e-5 < apart < 0.51 * step * units.max()


def test_sites_share_the_union_of_what_they_saw():
    layer = QuantizeActivation(sites=3, momentum=0.0)
    layer(numbers(-1, 2), site=0, training=True)
    assert layer.range == (-1, 2)
    layer(numbers(-4, 1), site=2, training=True)
    assert layer.range == (-4, 2)
    layer(numbers(0, 1), site=0, training=True)
    assert layer.range == (-4, 1)


def test_zeros_alone_leave_zeros():
    layer = QuantizeActivation()
    assert (rounded(layer, numbers(0, 0), training=True) == 0).all()
    assert (rounded(layer, numbers(0, 0)) == 0).all()
    assert np.isfinite(layer.range).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_leaves_the_range_alone(bad):
    layer = QuantizeActivation(momentum=0.5)
    layer(numbers(-1, 3), training=True)
    found = rounded(layer, numbers(bad, -1, 3), training=True)[0]
    assert layer.range == (-1, 3)
    assert np.isnan(found[0]) == np.isnan(bad)  # the loss shows it


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": 0}, "sites must be 1 or more"),
        ({"momentum": 1.0}, "below 1"),
        ({"momentum": -0.1}, "at least 0"),
        ({"fixed": (1.0, 2.0)}, "with zero in it"),
        ({"fixed": (0.0, 0.0)}, "with zero in it"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        QuantizeActivation(**options)


def test_configs_make_the_same_layers():
    for layer in (
        QuantizeActivation(2, 0.9, name="range"),
        QuantizeActivation(fixed=(0, 1)),
        QuantizeWeights(keras.layers.DepthwiseConv2D(3), {"kernel": (-2, -1)}, keep_zeros=True),
        KeepFloat(keras.layers.ReLU()),
    ):
        config = layer.get_config()
        assert type(layer).from_config(dict(config)).get_config() == config
