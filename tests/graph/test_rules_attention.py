"""Attention: heads, widths and features go exactly, alone and together."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons, macs_of

import tfprune

layers = keras.layers


def _features(width: int = 6, name: str = "trunk", time: int = 5) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    inputs = keras.Input((time, 4))
    return inputs, layers.Dense(width, "tanh", name=name)(inputs)


def _classify(inputs: object, x: keras.KerasTensor) -> keras.Model:
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_bias": False},
        {"value_dim": 5},
        {"use_gate": True, "value_dim": 5},
        {"dropout": 0.1},
        {"output_shape": 7},
        {"sliding_window": 2},
    ],
    ids=str,
)
def test_multi_head_attention_loses_heads_and_widths_exactly(settings):
    inputs, x = _features()
    model = _classify(inputs, layers.MultiHeadAttention(4, 6, name="mha", **settings)(x, x))
    small, sizes = assert_shrinks_exactly(model)
    value_dim = settings.get("value_dim", 6)
    expected = {"mha/heads": 2, "mha/key_dim": 3, "mha/value_dim": value_dim - round(value_dim / 2), "trunk": 3}
    assert expected.items() <= sizes.items()
    layer = small.get_layer("mha")
    assert (layer.num_heads, layer.key_dim, layer.value_dim) == (2, 3, expected["mha/value_dim"])


def test_the_queries_make_up_for_fewer_features():
    inputs, x = _features()
    model = _classify(inputs, layers.MultiHeadAttention(2, 8, name="mha")(x, x))
    small, _ = assert_shrinks_exactly(model, ratio=0.75)
    before, after = (each.get_layer("mha").query_dense.kernel.numpy() for each in (model, small))
    assert after.shape[2] == 2
    assert np.abs(after).max() <= np.abs(before).max() * 0.5 + 1e-6


@pytest.mark.parametrize("causal", [False, True])
def test_residual_attention_keeps_the_trunk_together(causal):
    inputs, x = _features()
    attended = layers.MultiHeadAttention(2, 4, name="mha")(x, x, use_causal_mask=causal)
    small, sizes = assert_shrinks_exactly(_classify(inputs, layers.Add()([x, attended])))
    assert sizes == {"trunk": 3, "mha/heads": 1, "mha/value_dim": 2, "mha/key_dim": 2}
    assert small.get_layer("mha").get_config()["output_shape"] is None


def test_query_value_and_key_may_come_from_different_layers():
    inputs, x = _features()
    other = keras.Input((7, 3))
    value, key = layers.Dense(8, name="value")(other), layers.Dense(10, name="key")(other)
    attended = layers.MultiHeadAttention(2, 4, name="mha")(x, value, key=key)
    _, sizes = assert_shrinks_exactly(_classify([inputs, other], attended))
    assert sizes == {"trunk": 3, "value": 4, "key": 5, "mha/heads": 1, "mha/value_dim": 2, "mha/key_dim": 2, "mha": 3}


def test_attention_over_the_rows_of_an_image():
    inputs = keras.Input((3, 4, 2))
    x = layers.Conv2D(6, 1, name="conv")(inputs)
    x = layers.MultiHeadAttention(2, 4, attention_axes=(2,), name="mha")(x, x)
    _, sizes = assert_shrinks_exactly(_classify(inputs, x))
    assert sizes["conv"] == 3


def test_masks_from_an_embedding_are_kept():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(11, 6, mask_zero=True, name="embedding")(inputs)
    x = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes["embedding"] == 3


def test_a_mask_given_as_a_tensor_does_not_hinder():
    inputs, x = _features()
    mask = keras.Input((5, 5))
    attended = layers.MultiHeadAttention(2, 4, name="mha")(x, x, attention_mask=mask)
    _, sizes = assert_shrinks_exactly(_classify([inputs, mask], attended))
    assert sizes["mha/heads"] == 1


def test_a_mask_for_every_head_keeps_the_heads():
    inputs, x = _features()
    mask = keras.Input((2, 5, 5))
    model = _classify([inputs, mask], layers.MultiHeadAttention(2, 4, name="mha")(x, x, attention_mask=mask))
    assert "mask for every head" in frozen_reasons(model, "mha/heads")
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"trunk": 3, "mha/value_dim": 2, "mha/key_dim": 2, "mha": 3}


def test_scores_that_are_given_out_keep_the_heads():
    inputs, x = _features()
    attended, scores = layers.MultiHeadAttention(2, 4, name="mha")(x, x, return_attention_scores=True)
    model = keras.Model(inputs, [layers.Dense(3)(attended), scores])
    assert "gives out its scores" in frozen_reasons(model, "mha/heads")
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"trunk": 3, "mha/value_dim": 2, "mha/key_dim": 2, "mha": 3}


def test_outputs_along_several_axes_stay():
    inputs, x = _features()
    model = _classify(inputs, layers.MultiHeadAttention(2, 4, output_shape=(3, 2), name="mha")(x, x))
    small, sizes = assert_shrinks_exactly(model)
    assert "mha" not in sizes
    assert small.get_layer("mha").output.shape == (None, 5, 3, 2)


def test_a_shared_layer_is_shrunk_once():
    inputs, x = _features()
    shared = layers.MultiHeadAttention(2, 4, name="mha")
    small, _ = assert_shrinks_exactly(_classify(inputs, shared(shared(x, x), x)))
    assert small.get_layer("mha").num_heads == 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("use_gate", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_grouped_attention_loses_key_value_heads_with_their_queries(use_gate, use_bias):
    inputs, x = _features()
    layer = layers.GroupQueryAttention(4, 6, 3, use_gate=use_gate, use_bias=use_bias, name="gqa")
    small, sizes = assert_shrinks_exactly(_classify(inputs, layer(x, x)), ratio=0.34)
    assert sizes == {"trunk": 4, "gqa/heads": 2, "gqa/head_dim": 3}
    copy = small.get_layer("gqa")
    assert (copy.num_query_heads, copy.num_key_value_heads, copy.head_dim) == (4, 2, 3)


def test_grouped_attention_on_the_models_input_keeps_its_output():
    inputs = keras.Input((5, 4))
    model = _classify(inputs, layers.GroupQueryAttention(4, 4, 2, name="gqa")(inputs, inputs))
    assert frozen_reasons(model, "gqa") == "model input"


def test_a_live_head_stays_even_if_its_queries_are_zero():
    inputs, x = _features()
    model = _classify(inputs, layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    query = model.get_layer("mha").query_dense.kernel
    query.assign(query * np.array([1.0, 0.0])[:, None])
    with pytest.warns(UserWarning, match="No channel"):
        assert tfprune.shrink(model).get_layer("mha").num_heads == 2


def test_quantized_attention_is_left_alone():
    inputs, x = _features()
    layer = layers.MultiHeadAttention(2, 4, name="mha")
    model = _classify(inputs, layer(x, x))
    layer.query_dense.enable_lora(2)
    assert "not a plain variable" in frozen_reasons(model, "trunk")


def test_macs_of_attention():
    inputs, x = _features(6, time=5)
    other = keras.Input((7, 3))
    model = _classify([inputs, other], layers.MultiHeadAttention(2, 4, value_dim=3, name="mha")(x, other))
    queries, keys, values, output = 5 * 6 * 2 * 4, 7 * 3 * 2 * 4, 7 * 3 * 2 * 3, 5 * 2 * 3 * 6
    scores, sums = 5 * 7 * 2 * 4, 5 * 7 * 2 * 3
    assert macs_of(model, "mha") == queries + keys + values + output + scores + sums


def test_macs_of_grouped_attention():
    inputs, x = _features(6, time=5)
    model = _classify(inputs, layers.GroupQueryAttention(4, 6, 3, name="gqa")(x, x))
    projections = 5 * 6 * 4 * (6 + 3 + 3 + 6)
    assert macs_of(model, "gqa") == projections + 2 * 5 * 5 * 6 * 4
