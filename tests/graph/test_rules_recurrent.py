"""Recurrent layers lose hidden units exactly."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons, macs_of, randomize

import tfprune
from tfprune.graph import channel_groups
from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks

layers = keras.layers

KINDS = [layers.SimpleRNN, layers.GRU, layers.LSTM]


def _model(layer: keras.layers.Layer, time: int = 5) -> keras.Model:
    inputs = keras.Input((time, 4))
    x = layers.Dense(6, "tanh", name="trunk")(inputs)
    outputs = [layers.Dense(3)(each) for each in keras.tree.flatten(layer(x))]
    return keras.Model(inputs, outputs)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_bias": False},
        {"return_sequences": True},
        {"return_state": True, "return_sequences": True},
        {"go_backwards": True, "unroll": True},
        {"activation": None},
        {"activation": "relu", "dropout": 0.2, "recurrent_dropout": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_units_go_exactly(kind, settings):
    small, sizes = assert_shrinks_exactly(_model(kind(8, name="cells", **settings)))
    assert sizes == {"trunk": 3, "cells": 4}
    assert small.get_layer("cells").units == 4


@pytest.mark.parametrize("use_bias", [False, True])
def test_gru_with_the_reset_gate_before(use_bias):
    _, sizes = assert_shrinks_exactly(_model(layers.GRU(8, reset_after=False, use_bias=use_bias, name="cells")))
    assert sizes == {"trunk": 3, "cells": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_stacked_layers(kind):
    inputs = keras.Input((5, 4))
    x = kind(8, return_sequences=True, name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(kind(6, name="second")(x)))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"first": 4, "second": 3}


def test_a_residual_connection_ties_units_to_inputs():
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="trunk")(inputs)
    x = layers.Add()([x, layers.LSTM(6, return_sequences=True, name="cells")(x)])
    _, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(2)(x)))
    assert sizes == {"trunk": 3}


def test_masked_time_steps():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True, name="embedding")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="first")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(6, name="second")(x)))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"embedding": 4, "first": 3, "second": 3}


def test_a_masking_layer():
    inputs = keras.Input((6, 4))
    x = layers.Dense(6, "relu", name="trunk")(inputs)
    _, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(2)(layers.LSTM(4)(layers.Masking()(x)))))
    assert sizes["trunk"] == 3


def test_masking_another_number_than_zero_keeps_all_channels():
    inputs = keras.Input((6, 4))
    x = layers.Masking(1.0, name="masking")(layers.Dense(6, name="trunk")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4)(x)))
    assert "'masking' looks for 1.0 in all channels" in frozen_reasons(model, "trunk")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stateful_layer_goes_on_from_its_own_states(kind):
    inputs = keras.Input(batch_shape=(8, 5, 4))
    model = keras.Model(inputs, layers.Dense(2)(kind(6, stateful=True, name="cells")(inputs)))
    randomize(model)
    (group,) = channel_groups(model).free
    keep = np.arange(group.size) % 2 == 0
    apply_masks(model, channel_masks([(group, keep)], ("producer", "affine")))
    small = tfprune.shrink(model)
    assert small.get_layer("cells").units == 3
    batches = np.random.default_rng(0).normal(size=(3, 8, 5, 4)).astype("float32")
    for layer in (model.get_layer("cells"), small.get_layer("cells")):
        layer.reset_state()
    for batch in batches:
        np.testing.assert_allclose(small(batch), model(batch), atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_an_activation_that_wakes_zero_units_freezes_them(kind, activation):
    model = _model(kind(6, activation=activation, name="cells"))
    assert frozen_reasons(model, "cells") == "the activation of 'cells' wakes units that are zero"
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"trunk": 3}


def test_a_gate_that_mixes_units_freezes_them():
    model = _model(layers.LSTM(6, recurrent_activation="softmax", name="cells"))
    assert frozen_reasons(model, "cells") == "softmax in 'cells' mixes channels"


def test_states_that_are_given_freeze_the_units():
    inputs, state = keras.Input((5, 4)), keras.Input((6,))
    model = keras.Model([inputs, state], layers.Dense(2)(layers.GRU(6, name="cells")(inputs, initial_state=state)))
    assert frozen_reasons(model, "cells") == "'cells' starts from states that are given to it"


def test_an_encoder_hands_its_states_to_a_decoder():
    inputs, targets = keras.Input((5, 4)), keras.Input((3, 2))
    _, *states = layers.LSTM(6, return_state=True, name="encoder")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="decoder")(targets, initial_state=states)
    model = keras.Model([inputs, targets], layers.Dense(2)(x))
    assert "reads it as a state" in frozen_reasons(model, "encoder")
    assert "given to it" in frozen_reasons(model, "decoder")


def test_a_unit_that_only_has_a_bias_stays():
    model = _model(layers.SimpleRNN(4, name="cells"))
    randomize(model)
    cell = model.get_layer("cells").cell
    for variable in (cell.kernel, cell.recurrent_kernel):
        variable.assign(variable * np.array([1.0, 0.0, 1.0, 1.0]))
    with pytest.warns(UserWarning, match="No channel"):
        assert tfprune.shrink(model).get_layer("cells").units == 4


@pytest.mark.parametrize("silent", ["kernel", "recurrent_kernel"])
def test_a_unit_that_only_the_inputs_or_only_the_others_feed_stays(silent):
    model = _model(layers.SimpleRNN(4, use_bias=False, name="cells"))
    randomize(model)
    kernel = getattr(model.get_layer("cells").cell, silent)
    kernel.assign(kernel * np.array([1.0, 0.0, 1.0, 1.0]))
    with pytest.warns(UserWarning, match="No channel"):
        assert tfprune.shrink(model).get_layer("cells").units == 4


@pytest.mark.sampled(2)
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_layers_lose_units_in_pairs(kind, merge_mode):
    wrapped = layers.Bidirectional(kind(6, return_sequences=True), merge_mode=merge_mode, name="both")
    small, sizes = assert_shrinks_exactly(_model(wrapped))
    assert sizes == {"trunk": 3, "both": 3}
    assert [small.get_layer("both").forward_layer.units, small.get_layer("both").backward_layer.units] == [3, 3]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_with_states_and_a_backward_layer_of_its_own(kind):
    backward = kind(6, activation="relu", go_backwards=True, return_state=True)
    wrapped = layers.Bidirectional(kind(6, return_state=True), backward_layer=backward, name="both")
    small, sizes = assert_shrinks_exactly(_model(wrapped))
    assert sizes == {"trunk": 3, "both": 3}
    assert small.get_layer("both").backward_layer.get_config()["activation"] == "relu"


@pytest.mark.parametrize("merge_mode", ["concat", "sum"])
def test_bidirectional_layers_of_a_kind_unknown_here_stay(merge_mode):
    class Cells(layers.LSTM):
        pass

    inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="trunk")(inputs)
    with keras.saving.custom_object_scope({"Cells": Cells}):
        x = layers.Bidirectional(Cells(4, return_sequences=True), merge_mode=merge_mode)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Conv1D(4, 2, name="after")(x)))
    assert "no rule for Cells" in frozen_reasons(model, "trunk")
    assert [group.name for group in channel_groups(model).free] == ["after"]


def test_bidirectional_layers_with_masked_time_steps():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 8, mask_zero=True, name="embedding")(inputs)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(4), name="each")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GRU(4, name="last")(x)))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"embedding": 4, "both": 3, "each": 2, "last": 2}


def test_a_call_by_keywords_only_is_not_followed():
    inputs, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    x = layers.Dense(6, name="trunk")(inputs)
    model = keras.Model([inputs, mask], layers.Dense(2)(layers.LSTM(4, name="cells")(sequences=x, mask=mask)))
    assert "by keywords only" in frozen_reasons(model, "trunk")


def test_bidirectional_layers_of_different_size_stay():
    backward = layers.LSTM(4, go_backwards=True, return_sequences=True)
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, name="trunk")(inputs)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True), backward_layer=backward, name="both")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    assert frozen_reasons(model, "trunk") == "'both' has layers of different size"


@pytest.mark.parametrize(("kind", "gates"), [*zip(KINDS, [1, 3, 4], strict=True)])
def test_macs_are_those_of_both_kernels_at_each_time_step(kind, gates):
    model = _model(kind(8, name="cells"), time=5)
    assert macs_of(model, "cells") == 5 * (6 + 8) * 8 * gates
    both = _model(layers.Bidirectional(kind(8), name="cells"), time=5)
    assert macs_of(both, "cells") == 2 * 5 * (6 + 8) * 8 * gates
