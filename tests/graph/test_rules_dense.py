"""Dense layers written as an einsum, and embeddings."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons, macs_of, randomize

import tfprune
from tfprune.graph.rules.dense import Axes, parse_equation

layers = keras.layers


def _model(layer: keras.layers.Layer, shape: tuple[int, ...] = (5, 4)) -> keras.Model:
    inputs = keras.Input(shape)
    x = layer(layers.Dense(6, "tanh", name="trunk")(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("equation", "axes"),
    [
        ("ab,bc->ac", Axes(((-1, 0),), -1, 1)),
        ("...x,xy->...y", Axes(((-1, 0),), -1, 1)),
        ("abc, dc -> abd", Axes(((-1, 1),), -1, 0)),
        ("abc,cde->abde", Axes(((-1, 0),), -1, 2)),
        ("abcd,cde->abe", Axes(((-2, 0), (-1, 1)), -1, 2)),
        ("abc,bd->adc", Axes(((-2, 0),), -2, 1)),
        ("abc,c->ab", Axes(((-1, 0),), None, None)),
        ("ab...,bc->ac...", None),
        ("aab,bc->ac", None),
    ],
)
def test_parse_equation(equation, axes):
    assert parse_equation(equation) == axes


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("equation", "shape", "bias"),
    [
        ("abc,cd->abd", (5, 8), "d"),
        ("abc,cd->abd", (5, 8), None),
        ("abc,cd->abd", (5, 8), "bd"),
        ("abc,dc->abd", (5, 8), "d"),
        ("...c,cd->...d", 8, "d"),
        ("abc,cde->abde", (5, 2, 8), "de"),
        ("abc,cde->abde", (5, 2, 8), "e"),
        ("abc,bcd->abd", (5, 8), "d"),
        ("abc,cd->ad", 8, "d"),
        ("abc,cd->adb", (8, 5), "d"),
    ],
)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_einsum_goes_exactly(equation, shape, bias, activation):
    layer = layers.EinsumDense(equation, shape, activation=activation, bias_axes=bias, name="einsum")
    small, sizes = assert_shrinks_exactly(_model(layer))
    assert sizes == {"trunk": 3, "einsum": 4}
    assert 4 in small.get_layer("einsum").output.shape


def test_einsum_over_positions_of_unknown_number():
    inputs = keras.Input((None, 4))
    x = layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d", name="einsum")(inputs)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Dense(3)(x)))
    small, sizes = assert_shrinks_exactly(model)
    assert sizes == {"einsum": 4}
    assert small.get_layer("einsum").output.shape == (None, None, 4)


def test_einsum_that_reads_two_axes():
    inputs = keras.Input((5, 4))
    x = layers.EinsumDense("abc,cde->abde", (5, 2, 8), bias_axes="de", name="split")(inputs)
    x = layers.EinsumDense("abde,def->abf", (None, 6), bias_axes="f", name="join")(x)
    _, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(3)(x)))
    assert sizes == {"split": 4, "join": 3}


def test_a_constant_is_folded_into_the_bias():
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, "sigmoid", name="trunk")(inputs)
    x = layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d", name="einsum")(x)
    _, sizes = assert_shrinks_exactly(keras.Model(inputs, x))
    assert sizes == {"trunk": 3}


@pytest.mark.parametrize(("equation", "shape", "bias"), [("abc,cd->abd", (None, 4), None), ("abc,cd->ad", 4, "d")])
def test_a_constant_that_cannot_be_folded_freezes(equation, shape, bias):
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, "sigmoid", name="trunk")(inputs)
    x = layers.EinsumDense(equation, shape, bias_axes=bias, name="einsum")(x)
    assert "cannot absorb" in frozen_reasons(keras.Model(inputs, layers.Flatten()(x)), "trunk")


def test_a_bias_that_all_channels_share_freezes_them():
    model = _model(layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="b", name="einsum"))
    assert frozen_reasons(model, "einsum") == "'einsum' adds one bias to all channels"
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"trunk": 3}


def test_a_bias_that_varies_over_positions_is_no_constant():
    model = _model(layers.EinsumDense("abc,cd->abd", (5, 8), bias_axes="bd", name="einsum"))
    randomize(model)
    kernel = model.get_layer("einsum").kernel
    kernel.assign(kernel * (np.arange(8) > 1))
    with pytest.warns(UserWarning, match="No channel"):
        assert tfprune.shrink(model).get_layer("einsum").output.shape == (None, 5, 8)


def test_an_einsum_that_keeps_the_axis_of_the_channels_freezes_them():
    model = _model(layers.EinsumDense("abc,bd->adc", (3, 6), name="einsum"))
    assert frozen_reasons(model, "trunk") == "'einsum' does not sum over the axis of its channels alone"


@pytest.mark.parametrize("equation", ["abc,c->ab", "abc,bc->abc"])
def test_an_einsum_that_makes_no_channels_freezes_what_it_reads(equation):
    shape = (5,) if equation.endswith("ab") else (5, 6)
    model = _model(layers.EinsumDense(equation, shape, name="einsum"))
    assert "is not understood" in frozen_reasons(model, "trunk")


def test_lora_freezes():
    layer = layers.EinsumDense("abc,cd->abd", (5, 8), name="einsum")
    model = _model(layer)
    layer.enable_lora(2)
    assert "not a plain variable" in frozen_reasons(model, "trunk")


@pytest.mark.parametrize("mask_zero", [False, True])
def test_embeddings(mask_zero):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=mask_zero, name="embedding")(inputs)
    small, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x))))
    assert sizes == {"embedding": 4}
    assert small.get_layer("embedding").output_dim == 4


def test_embeddings_shared_by_two_inputs():
    first, second = keras.Input((6,), dtype="int32"), keras.Input((6,), dtype="int32")
    embedding = layers.Embedding(11, 8, name="embedding")
    x = layers.Add()([embedding(first), embedding(second)])
    _, sizes = assert_shrinks_exactly(keras.Model([first, second], layers.Dense(3)(x)))
    assert sizes == {"embedding": 4}


def test_embeddings_with_lora_are_left_alone():
    inputs = keras.Input((6,), dtype="int32")
    layer = layers.Embedding(11, 8, name="embedding")
    x = layers.Dense(4, name="after")(layer(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    layer.enable_lora(2)
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"after": 2}


def test_macs():
    model = _model(layers.EinsumDense("abc,cde->abde", (5, 2, 8), name="einsum"))
    assert macs_of(model, "einsum") == 5 * 6 * 2 * 8
    batched = _model(layers.EinsumDense("abc,bcd->abd", (5, 8), name="einsum"))
    assert macs_of(batched, "einsum") == 5 * 6 * 8
