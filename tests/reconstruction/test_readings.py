"""Every layer as a matrix product, against what the layer itself computes; least squares against NumPy's."""

import keras
import numpy as np
import pytest

from tfprune.reconstruction.least_squares import NormalEquations
from tfprune.reconstruction.readings import reading_of

L = keras.layers
IMAGE, VOLUME, SERIES = (7, 6, 4), (5, 4, 3, 2), (9, 4)
READ = {
    "dense": (L.Dense(3), (4,)),
    "dense_no_bias": (L.Dense(3, use_bias=False), (4,)),
    "dense_of_steps": (L.Dense(3), SERIES),
    "einsum": (L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), SERIES),
    "einsum_heads": (L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"), SERIES),
    "einsum_joined": (L.EinsumDense("abcd,cde->abe", (None, 3), bias_axes="e"), (5, 2, 3)),
    "einsum_ellipsis": (L.EinsumDense("...x,xy->...y", (5, 3)), SERIES),
    "valid": (L.Conv2D(3, (3, 2)), IMAGE),
    "same": (L.Conv2D(3, (3, 2), padding="same"), IMAGE),
    "strided": (L.Conv2D(3, 3, strides=2, padding="same"), IMAGE),
    "strided_valid": (L.Conv2D(3, 3, strides=(2, 3), use_bias=False), IMAGE),
    "dilated": (L.Conv2D(3, 3, dilation_rate=2, padding="same"), IMAGE),
    "grouped": (L.Conv2D(6, 3, groups=2, padding="same"), IMAGE),
    "depthwise": (L.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), IMAGE),
    "depthwise_strided": (L.DepthwiseConv2D(3, strides=2), IMAGE),
    "depthwise_1d": (L.DepthwiseConv1D(3, padding="same"), SERIES),
    "separable": (L.SeparableConv2D(3, 3, depth_multiplier=2, padding="same"), IMAGE),
    "separable_1d": (L.SeparableConv1D(3, 3, strides=2), SERIES),
    "conv_1d": (L.Conv1D(3, 3, strides=2, padding="same"), SERIES),
    "causal": (L.Conv1D(3, 3, dilation_rate=2, padding="causal"), SERIES),
    "conv_3d": (L.Conv3D(3, (2, 3, 1), strides=(2, 1, 1), padding="same"), VOLUME),
}


@pytest.fixture(scope="module")
def generator():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", READ)
def test_rows_times_the_matrix_is_what_the_layer_computes(name, generator):
    config, shape = READ[name]
    layer = type(config).from_config(config.get_config())
    layer.build((None, *shape))
    for variable in layer.variables:
        variable.assign(generator.normal(size=tuple(variable.shape)))
    x = generator.normal(size=(2, *shape))
    reading, output = reading_of(layer), keras.ops.convert_to_numpy(layer(x.astype("float32")))
    where = tuple(axis.ravel() for axis in np.indices(reading.places(x.shape)))
    found = reading.outputs(x, where)
    np.testing.assert_allclose(found, reading.values(output, where), atol=1e-5)
    assert found.size == output.size
    matrix = reading.matrix(reading.kernel.numpy())
    np.testing.assert_array_equal(reading.folded(matrix), reading.kernel.numpy())


def test_channels_first_reads_the_same(generator):
    """TensorFlow does not compute it on a CPU, so it is compared with the other order."""
    options = {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}
    last, first = L.Conv2D(**options), L.Conv2D(**options, data_format="channels_first")
    last.build((None, 7, 6, 4))
    first.build((None, 4, 7, 6))
    first.set_weights(last.get_weights())
    x = generator.normal(size=(2, 7, 6, 4))
    moved = np.moveaxis(x, -1, 1)
    assert reading_of(first).places(moved.shape) == reading_of(last).places(x.shape) == (2, 4, 3)
    where = tuple(axis.ravel() for axis in np.indices((2, 4, 3)))
    found, expected = (reading_of(layer).outputs(each, where) for layer, each in ((first, moved), (last, x)))
    np.testing.assert_array_equal(found, expected)
    output = keras.ops.convert_to_numpy(last(x.astype("float32")))
    np.testing.assert_allclose(reading_of(first).values(np.moveaxis(output, -1, 1), where), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        L.EinsumDense("abc,bcd->abd", (5, 3)),  # one kernel for each step
        L.EinsumDense("abc,cd->adb", (3, 5)),
        L.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e"),
    ],
)
def test_other_contractions_are_not_read(layer):
    layer.build((None, 5, 4))
    assert reading_of(layer) is None


def test_what_is_no_product_is_not_read():
    class Custom(L.Dense):
        pass

    assert [reading_of(layer) for layer in (Custom(2), L.LSTM(2), L.Conv2DTranspose(2, 3), L.ReLU())] == [None] * 4


def test_least_squares_are_those_of_numpy(generator):
    rows, targets = generator.normal(size=(90, 3, 5)), generator.normal(size=(90, 3, 2))
    equations = NormalEquations(3, 5, 2)
    for part in np.split(np.arange(90), 3):
        equations.add(rows[part], targets[part])
    found = equations.solution(generator.normal(size=(3, 5, 2)), 1e-12)
    centred = equations.centred().solution(np.zeros((3, 5, 2)), 1e-12)
    for group in range(3):
        a, t = rows[:, group], targets[:, group]
        expected = np.linalg.lstsq(a, t, rcond=None)[0]
        np.testing.assert_allclose(found[group], expected, rtol=1e-7)
        with_bias = np.linalg.lstsq(np.hstack([a, np.ones((90, 1))]), t, rcond=None)[0]
        np.testing.assert_allclose(centred[group], with_bias[:-1], rtol=1e-7)
    left = sum(np.linalg.lstsq(rows[:, g], targets[:, g], rcond=None)[1].sum() for g in range(3))
    assert equations.error(found) == pytest.approx(left / (targets**2).sum())


def test_ridge_leads_to_the_present_matrix(generator):
    rows, present = generator.normal(size=(40, 1, 4)), generator.normal(size=(1, 4, 2))
    equations = NormalEquations(1, 4, 2)
    equations.add(rows, generator.normal(size=(40, 1, 2)))
    np.testing.assert_allclose(equations.solution(present, 1e9), present, rtol=1e-6)
    # the formula, written down
    a, strength = rows[:, 0], 0.3 * (rows**2).sum() / 4
    right = equations._cross[0] + strength * present[0]
    expected = np.linalg.solve(a.T @ a + strength * np.eye(4), right)
    np.testing.assert_allclose(equations.solution(present, 0.3)[0], expected)


def test_inputs_that_never_vary_keep_their_weights(generator):
    equations = NormalEquations(1, 2, 1)
    equations.add(np.zeros((9, 1, 2)), np.ones((9, 1, 1)))
    assert equations.solution(np.array([[[2.0], [3.0]]]), 1e-3).ravel().tolist() == [2.0, 3.0]
