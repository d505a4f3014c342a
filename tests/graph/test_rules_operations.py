import keras
import numpy as np
import pytest
from helpers_graph import arrays, compare, frozen_reasons, randomize, shrunken_equals_masked
from keras import ops

from tfprune.shrinking.removal import shrink

L = keras.layers


def network(middle, shape=(6, 6, 3), width=8, activation=None, flat=False):
    """A convolution, what is tested, and a 1x1 convolution that reads it."""
    inputs = keras.Input(shape)
    x = L.Conv2D(width, 3, padding="same", activation=activation, name="conv")(inputs)
    x = L.BatchNormalization(name="bn")(x)
    x = middle(x)
    if len(x.shape) == 4 and not flat:
        x = L.Conv2D(5, 1, name="reader")(x)
    x = L.Flatten()(x) if None not in x.shape[1:] else L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x))


def named(*cases):
    return [pytest.param(function, id=name) for name, function in cases]


EXACT = named(
    ("add", lambda x: x + ops.square(x)),
    ("subtract", lambda x: x - 2.0 * x),
    ("scalar", lambda x: (3.0 * x - 0.5) * 2),
    ("left_scalar", lambda x: 1.0 - x),
    ("maximum", lambda x: ops.maximum(x, 0.2)),
    ("minimum_of_two", lambda x: ops.minimum(x, -x)),
    ("divide_by_number", lambda x: x / 4.0),
    ("negative", lambda x: -x),
    ("abs_sqrt", lambda x: ops.sqrt(abs(x))),
    ("power", lambda x: x**2),
    ("power_of_number", lambda x: 2.0**x),
    ("exp", ops.exp),
    ("softplus_op", ops.softplus),
    ("relu_with_bounds", lambda x: keras.activations.relu(x, 0.1, 2.0, 0.05)),
    ("gelu", lambda x: ops.gelu(x, approximate=False)),
    ("relu", ops.relu),
    ("silu", ops.silu),
    ("sigmoid_gate", lambda x: x * ops.sigmoid(x)),
    ("leaky_relu", lambda x: ops.leaky_relu(x, 0.3)),
    ("clip", lambda x: ops.clip(x, 0.1, 2.0)),
    ("cast", lambda x: ops.cast(x, "float32")),
    ("stop_gradient", ops.stop_gradient),
    ("where", lambda x: ops.where(x > 0.1, x, 0.5 * x)),
    ("tanh_array", lambda x: ops.tanh(x) * np.linspace(0.5, 1.5, 6, dtype="float32").reshape(1, 6, 1, 1)),
    ("one_number_array", lambda x: x + np.full((1, 1, 1, 1), 0.5, "float32")),
    ("spatial_slice", lambda x: x[:, ::2, 1:]),
    ("spatial_index", lambda x: x[:, 2]),
    ("new_axis", lambda x: x[:, :, None, 1]),
    ("halves", lambda x: ops.concatenate([x[..., 4:], x[..., :4] * 2.0], axis=-1)),
    ("split", lambda x: ops.concatenate(ops.split(x, 2, axis=-1)[::-1], axis=-1)),
    ("split_at", lambda x: ops.concatenate([2.0 * part for part in ops.split(x, [3, 5], axis=3)], axis=3)),
    ("split_spatial", lambda x: ops.add(*ops.split(x, 2, axis=1))),
    ("concatenate_spatial", lambda x: ops.concatenate([x, -x], axis=1)),
    ("stack", lambda x: ops.stack([x, 2.0 * x], axis=1)[:, 1]),
    ("unstack", lambda x: ops.unstack(x, axis=1)[2]),
    ("transpose", lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)), (0, 2, 3, 1))),
    ("transposed_flat", lambda x: L.Flatten()(ops.transpose(x, (0, 3, 1, 2)))),
    ("moveaxis", lambda x: ops.moveaxis(ops.moveaxis(x, -1, 1), 1, 3)),
    ("swapaxes", lambda x: ops.swapaxes(ops.swapaxes(x, 1, 3), 1, 3)),
    ("reshape", lambda x: ops.reshape(x, (-1, 36, 8))),
    ("reshape_open", lambda x: ops.reshape(x, (-1, 6, 6, 8))),
    ("batch_joined", lambda x: ops.reshape(ops.square(ops.reshape(x, (-1, 8))), (-1, 6, 6, 8))),
    ("expand_squeeze", lambda x: ops.squeeze(ops.expand_dims(x, 1), 1)),
    ("flip", lambda x: ops.flip(x, axis=(1, 2))),
    ("roll", lambda x: ops.roll(x, 1, axis=2)),
    ("pad", lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))),
    ("repeat_channels", lambda x: ops.repeat(x, 2, axis=-1)),
    ("repeat_spatial", lambda x: ops.repeat(x, 2, axis=1)),
    ("tile", lambda x: ops.tile(x, (1, 1, 2, 2))),
    ("mean_spatial", lambda x: ops.mean(x, axis=(1, 2))),
    ("mean_keepdims", lambda x: ops.mean(x, axis=(1, 2), keepdims=True)),
    ("max_spatial", lambda x: ops.max(x, axis=(1, 2))),
    ("sum_spatial", lambda x: ops.sum(x, axis=1)),
    ("variance", lambda x: ops.var(x, axis=(1, 2))),
    ("sum_channels", lambda x: ops.sum(x, axis=-1)),
    ("sum_squares", lambda x: ops.sum(ops.square(x), axis=-1, keepdims=True)),
    ("l2_normalize", lambda x: ops.normalize(x, axis=-1)),
    ("spatial_gate", lambda x: x * ops.sigmoid(ops.sum(x, axis=-1, keepdims=True))),
    ("divided_by_norm", lambda x: x / (1.0 + ops.sum(ops.square(x), axis=-1, keepdims=True))),
    ("spatial_softmax", lambda x: ops.softmax(ops.reshape(x, (-1, 36, 8)), axis=1)),
    ("squeeze_excite", lambda x: x * L.Dense(8, "sigmoid")(ops.mean(x, axis=(1, 2), keepdims=True))),
    ("resize", lambda x: ops.image.resize(x, (4, 4))),
    ("max_pool", lambda x: ops.max_pool(x, 2)),
    ("gram", lambda x: (lambda y: ops.matmul(y, ops.transpose(y, (0, 2, 1))))(ops.reshape(x, (-1, 36, 8)))),
    ("einsum_scores", lambda x: (lambda y: ops.einsum("bic,bjc->bij", y, y))(ops.reshape(x, (-1, 36, 8)))),
)


@pytest.mark.sampled(9)
@pytest.mark.parametrize("middle", EXACT)
def test_what_is_followed_is_exact(middle):
    model = network(middle)
    small = shrunken_equals_masked(model)
    assert small.get_layer("conv").filters < model.get_layer("conv").filters


def test_channels_that_a_slice_leaves_out_are_dead():
    model = network(lambda x: x[:, :, :, 2:-1])
    randomize(model)
    small = shrink(model)
    assert small.get_layer("conv").filters == 5
    compare(model, small, arrays(model))
    masked = shrunken_equals_masked(network(lambda x: ops.tanh(x[..., :5]) + x[..., 3:]))
    assert masked.get_layer("conv").filters < 8


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize(
    "middle",
    named(
        ("slices", lambda x: ops.concatenate([x[..., 4:], x[..., :4] * 2.0], axis=-1)),
        ("split", lambda x: ops.concatenate(ops.split(x, [3, 5], axis=-1), axis=-1)),
        ("reshape", lambda x: ops.reshape(x, (-1, 36, 8))),
        ("transpose", lambda x: ops.transpose(x, (0, 2, 1, 3)) * 2.0 + 1.0),
    ),
)
def test_shrunken_operations_save_and_load(middle, tmp_path):
    assert shrunken_equals_masked(network(middle), tmp_path=tmp_path).count_params() > 0


FROZEN = [
    pytest.param(lambda x: 1.0 / x, "not finite", id="reciprocal"),
    pytest.param(ops.log, "not finite", id="log"),
    pytest.param(lambda x: x / (x + x), "not finite", id="divide_by_channels"),
    pytest.param(lambda x: x * np.arange(1.0, 9.0, dtype="float32"), "along the channels", id="array"),
    pytest.param(
        lambda x: x + np.arange(6.0, dtype="float32").reshape(1, 6, 1, 1), "vary over positions", id="position_array"
    ),
    pytest.param(lambda x: x[..., ::2], "in steps", id="step"),
    pytest.param(lambda x: ops.flip(x, axis=-1), "order of channels", id="flip_channels"),
    pytest.param(lambda x: ops.mean(x, axis=-1, keepdims=True), "over channels", id="mean_channels"),
    pytest.param(lambda x: ops.max(x, axis=-1, keepdims=True), "over channels", id="max_channels"),
    pytest.param(lambda x: ops.softmax(x, axis=-1), "mixes channels", id="softmax"),
    pytest.param(lambda x: x + ops.sum(x, axis=-1, keepdims=True), "one number with all", id="add_to_all"),
    pytest.param(lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=1.0), "not zero", id="pad"),
    pytest.param(lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0))), "pads channels", id="pad_channels"),
    pytest.param(lambda x: ops.cumsum(x, axis=-1), "no rule for Cumsum", id="no_rule"),
    pytest.param(lambda x: ops.einsum("bhwc,bhwd->bcd", x, x), "pairs every channel", id="outer"),
]


@pytest.mark.parametrize(("middle", "reason"), FROZEN)
def test_what_is_not_followed_is_frozen_with_a_reason(middle, reason):
    assert reason in frozen_reasons(network(middle))["conv"]


def test_a_channel_taken_by_number_stays_and_the_others_may_go():
    model = network(lambda x: x * ops.sigmoid(x[..., 5:6]))
    assert "multiplies all channels by it" in frozen_reasons(model)["conv"]


@pytest.mark.parametrize(
    "middle",
    named(
        ("array", lambda x: (x + 1.0) * np.linspace(0.5, 1.5, 6, dtype="float32").reshape(1, 6, 1, 1)),
        ("concatenate", lambda x: ops.concatenate([ops.exp(x), -ops.exp(x)], axis=1)),
        ("stack", lambda x: ops.stack([ops.exp(x), x], axis=1)),
        ("pad", lambda x: ops.pad(ops.exp(x), ((0, 0), (1, 1), (0, 0), (0, 0)))),
        ("heads", lambda x: ops.reshape(ops.exp(x), (-1, 36, 2, 4))),
        ("sum_channels", lambda x: ops.sum(ops.exp(x), axis=-1, keepdims=True)),
    ),
)
def test_constants_that_vary_over_positions_are_not_folded(middle):
    model = network(middle)
    randomize(model)
    for weight in (*model.get_layer("conv").weights, *model.get_layer("bn").trainable_weights):
        weight.assign(np.where(np.arange(8) < 3, 0.0, weight.numpy()))
    with pytest.warns(UserWarning, match="No channel"):
        assert shrink(model).get_layer("conv").filters == 8


def test_a_part_of_a_split_keeps_a_channel():
    model = network(lambda x: ops.concatenate([ops.tanh(x[..., :2]), x[..., 2:]], axis=-1))
    for layer in ("conv", "bn"):
        for weight in model.get_layer(layer).trainable_weights:
            value = weight.numpy()
            value[..., :2] = 0.0
            weight.assign(value)
    small = shrink(model)
    assert small.get_layer("conv").filters == 7
    sample = np.ones((2, 6, 6, 3), "float32")
    np.testing.assert_allclose(small(sample), model(sample), atol=1e-5)


def test_unknown_sizes_are_followed_where_only_channels_matter():
    model = network(lambda x: ops.relu(x)[:, 1:] * 2.0, shape=(None, None, 3))
    assert shrunken_equals_masked(model).get_layer("conv").filters < 8
    flat = network(lambda x: ops.reshape(x, (-1, 4, 2)), shape=(None, None, 3), width=8)
    assert frozen_reasons(flat)["conv"] == ""


def test_attention_of_operations_is_exact():
    inputs = keras.Input((10, 6))
    query, key, value = (L.Dense(8, name=name)(inputs) for name in ("query", "key", "value"))
    heads = [ops.transpose(ops.reshape(x, (-1, 10, 2, 4)), (0, 2, 1, 3)) for x in (query, key, value)]
    scores = ops.softmax(ops.matmul(heads[0], ops.transpose(heads[1], (0, 1, 3, 2))) / 2.0, axis=-1)
    x = ops.reshape(ops.transpose(ops.matmul(scores, heads[2]), (0, 2, 1, 3)), (-1, 10, 8))
    model = keras.Model(inputs, L.Dense(3)(x))
    small = shrunken_equals_masked(model, free={"query", "key", "value"}, fraction=0.6, seed=1)
    assert small.get_layer("query").units == small.get_layer("key").units < 8
    assert small.get_layer("value").units < 8


def test_variables_used_directly_freeze_their_layer():
    inputs = keras.Input((6,))
    dense = L.Dense(8, name="hidden")
    x = dense(inputs)
    model = keras.Model(inputs, L.Dense(2)(x * dense.bias))
    assert "uses the variable" in frozen_reasons(model)["hidden"]


def test_a_split_with_an_empty_part_is_frozen_as_such():
    inputs = keras.Input((4,))
    empty, rest = ops.split(L.Dense(6, name="dense")(inputs), [0], axis=-1)
    model = keras.Model(inputs, [L.Dense(2, name="end")(rest), empty])
    assert "splits off a part in which nothing is" in frozen_reasons(model)["dense"]
