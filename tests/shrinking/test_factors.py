"""Taking scaling factors out of models: what goes, what is folded, and that the outputs stay."""

import keras
import numpy as np
import pytest
from keras import ops
from networks import (
    chain,
    compiled,
    images,
    outputs,
    outputs_without_tfprune,
    randomize,
    relative_difference,
    residual,
    same,
    weights_of,
)

import tfprune
from tfprune.graph import channel_groups
from tfprune.layers import ScalingFactor, scaling_factors, with_scaling_factors
from tfprune.shrinking.factors import fold_scaling_factors

L = keras.layers


def set_factors(model, zero=(), seed=0):
    """Give all factors values around 1, and 0 to those at these places."""
    random = np.random.default_rng(seed)
    for index, layer in enumerate(scaling_factors(model)):
        values = random.uniform(0.5, 1.5, layer.factor.shape)
        layer.factor.assign(np.zeros(layer.factor.shape) if index in zero else values)
    return model


def assert_same_and_plain(scaled, x, tolerance=1e-5):
    """Shrink; the copy computes the same, has no layer of tfprune, and the model is as before."""
    before = weights_of(scaled)
    small = tfprune.shrink(scaled)
    assert relative_difference(outputs(scaled, x), outputs(small, x)) < tolerance
    assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)
    assert same(before, weights_of(scaled))
    return small


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def preactivation(widths=(4, 8), blocks=3):
    """A pre-activation ResNet: the first block of each stage has a projection."""
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(widths[0], 3, padding="same", use_bias=False)(inputs)
    for stage, width in enumerate(widths):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            y = L.ReLU()(L.BatchNormalization()(x))
            shortcut = x if block else L.Conv2D(width, 1, strides, use_bias=False, name=f"projection{stage}")(y)
            y = L.Conv2D(width, 3, strides, padding="same", use_bias=False, name=f"s{stage}b{block}a")(y)
            y = L.ReLU()(L.BatchNormalization()(y))
            y = L.Conv2D(width, 3, padding="same", use_bias=False, name=f"s{stage}b{block}b")(y)
            x = L.Add(name=f"s{stage}b{block}")([shortcut, y])
    x = L.GlobalAveragePooling2D()(L.ReLU()(L.BatchNormalization()(x)))
    return keras.Model(inputs, L.Dense(5)(x), name="preactivation")


def in_front(*layers, shape=(8, 8, 2), per="channel"):
    """A network of these layers, a factor behind them, and two layers more."""
    factor = ScalingFactor(per, name="factor")
    tail = [L.GlobalAveragePooling2D()] if len(shape) == 3 else []
    return keras.Sequential([keras.Input(shape), *layers, factor, *tail, L.Dense(3, name="classes")])


def samples(model, count=4):
    return np.random.default_rng(3).normal(size=(count, *model.input_shape[1:])).astype("float32")


def test_residual_block_goes_with_its_addition_and_the_second_relu():
    scaled = set_factors(with_scaling_factors(compiled(randomize(residual()), "adam")), zero=[0])
    small = assert_same_and_plain(scaled, images(4)[0])
    names = [layer.name for layer in small.layers]
    assert names == ["image", "stem", "stem_bn", "re_lu", "head", "re_lu_2", "global_average_pooling2d", "classes"]
    assert small.name == "residual"
    assert small.optimizer.get_config() == scaled.optimizer.get_config()
    assert np.isfinite(small.train_on_batch(*images(4))).all()


def test_residual_block_that_stays_is_folded():
    model = randomize(residual())
    small = assert_same_and_plain(set_factors(with_scaling_factors(model)), images(4)[0])
    assert kinds(small) == kinds(model)
    assert small.count_params() == model.count_params()


def test_preactivation_network_down_to_the_projections():
    scaled = set_factors(with_scaling_factors(randomize(preactivation())), zero=[1, 2, 4, 5])
    small = assert_same_and_plain(scaled, samples(scaled))
    left = {layer.name for layer in small.layers if isinstance(layer, L.Conv2D)}
    assert {name for name in left if name.startswith("s")} == {"s0b0a", "s0b0b", "s1b0a", "s1b0b"}
    assert kinds(small).count("Add") == 2


def test_preactivation_network_without_any_block():
    scaled = set_factors(with_scaling_factors(randomize(preactivation())), zero=range(6))
    small = assert_same_and_plain(scaled, samples(scaled))
    assert [layer.name for layer in small.layers if isinstance(layer, L.Conv2D)][1:] == ["projection0", "projection1"]
    assert "Add" not in kinds(small)


def mobilenet():
    model = randomize(keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=5))
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):  # most ReLUs are open
            layer.gamma.assign(np.abs(layer.gamma.numpy()))
            layer.beta.assign(np.abs(layer.beta.numpy()))
    model.get_layer("predictions").activation = keras.activations.linear
    return model


@pytest.mark.slow
def test_mobilenet_loses_blocks():
    model = mobilenet()
    scaled = set_factors(with_scaling_factors(model), zero=[0, 3, 4, 9])
    assert len(scaling_factors(scaled)) == 10
    small = assert_same_and_plain(scaled, samples(model, 2))
    assert kinds(small).count("Add") == 6
    assert kinds(small).count("Conv2D") == kinds(model).count("Conv2D") - 4 * 2
    assert small.count_params() < model.count_params()


@pytest.mark.slow
def test_mobilenet_loses_channels():
    model = mobilenet()
    scaled = with_scaling_factors(model, "channels")
    for layer in scaling_factors(scaled):
        layer.factor.assign(np.where(np.arange(layer.factor.shape[0]) % 3, 0.7, 0.0))
    small = assert_same_and_plain(scaled, samples(model, 2))
    assert small.get_layer("block_1_expand").filters == model.get_layer("block_1_expand").filters * 2 // 3
    assert kinds(small) == kinds(model)


def test_channels_whose_factor_is_zero_are_removed():
    scaled = with_scaling_factors(randomize(chain()), "channels")
    scaled.get_layer("first_factor").factor.assign([0.0, 2.0, 0.5, 0.0])
    scaled.get_layer("second_factor").factor.assign([1.0, 0.0, 0.5, 3.0, 0.0, 0.0])
    small = assert_same_and_plain(scaled, images(4)[0])
    assert type(small) is keras.Sequential
    assert (small.get_layer("first").filters, small.get_layer("second").filters) == (2, 3)


FOLDED = {
    "conv with ReLU": [L.Conv2D, (4, 3), {"activation": "relu"}],
    "transposed": [L.Conv2DTranspose, (4, 3), {}],
    "separable": [L.SeparableConv2D, (4, 3), {"depth_multiplier": 2}],
    "depthwise": [L.DepthwiseConv2D, (3,), {"depth_multiplier": 2, "use_bias": True}],
    "grouped": [L.Conv2D, (4, 3), {"groups": 2}],
    "dense": [L.Dense, (4,), {"use_bias": False}],
    "batch norm": [L.BatchNormalization, (), {"center": False}],
    "layer norm": [L.LayerNormalization, (), {}],
    "group norm": [L.GroupNormalization, (2,), {}],
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("per", ["block", "channel"])
def test_folds_into(name, per):
    kind, args, options = FOLDED[name]
    model = randomize(in_front(kind(*args, **options), per=per))
    set_factors(model)
    folded = fold_scaling_factors(model)
    assert "Rescaling" not in kinds(folded)
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


THROUGH = {
    "ReLU": lambda: [L.ReLU()],
    "leaky ReLU": lambda: [L.LeakyReLU()],
    "activation, dropout, pooling": lambda: [L.Activation("relu"), L.Dropout(0.5), L.MaxPooling2D(), L.ZeroPadding2D()],
    "another factor": lambda: [ScalingFactor("channel", name="other")],
    "a nested model": lambda: [keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(4, 3), L.ReLU()])],
}


@pytest.mark.parametrize("name", THROUGH)
def test_folds_through(name):
    model = randomize(in_front(L.Conv2D(4, 3), *THROUGH[name]()))
    set_factors(model)
    folded = fold_scaling_factors(model)
    assert "Rescaling" not in kinds(folded)
    assert not scaling_factors(folded)
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


LEFT = {
    "silu": lambda: [L.Conv2D(4, 3, activation="silu")],
    "relu6": lambda: [L.Conv2D(4, 3), L.ReLU(6.0)],
    "batch norm without gamma": lambda: [L.BatchNormalization(scale=False)],
    "einsum": lambda: [L.EinsumDense("abcd,de->abce", output_shape=(8, 8, 4))],
    "nothing": lambda: [],
}


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_folded_is_left_as_rescaling(name):
    for per in ("block", "channel"):
        model = randomize(in_front(*LEFT[name](), per=per))
        set_factors(model)
        folded = fold_scaling_factors(model)
        assert type(folded.get_layer("factor")) is L.Rescaling
        assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


@pytest.mark.parametrize("name", ["silu", "relu6"])
def test_zero_factors_remove_channels_also_where_others_cannot_be_folded(name):
    model = randomize(in_front(*LEFT[name]()))
    model.get_layer("factor").factor.assign([0.0, 0.5, 0.0, 2.0])
    small = assert_same_and_plain(model, samples(model))
    assert small.layers[0].filters == 2
    assert small.get_layer("factor").scale == [0.5, 2.0]


def test_a_negative_factor_does_not_pass_a_relu():
    model = randomize(in_front(L.Conv2D(4, 3, activation="relu")))
    model.get_layer("factor").factor.assign([1.0, -1.0, 0.5, 2.0])
    folded = fold_scaling_factors(model)
    assert "Rescaling" in kinds(folded)
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


def test_a_tensor_that_others_read_and_a_shared_layer_are_not_scaled():
    inputs = keras.Input((4,))
    dense = L.Dense(4, name="shared")
    x = dense(inputs)
    y = ScalingFactor(name="first")(x)
    z = ScalingFactor(name="second")(dense(y))
    model = set_factors(randomize(keras.Model(inputs, L.Dense(2)(L.Concatenate()([x, y, z])))))
    folded = fold_scaling_factors(model)
    assert kinds(folded).count("Rescaling") == 2
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


def test_a_factor_that_is_called_twice():
    inputs = keras.Input((4,))
    factor = ScalingFactor("channel", name="factor")
    x = factor(L.Dense(4)(inputs))
    x = factor(L.Activation("tanh")(L.Dense(4)(x)))
    x = factor(L.Activation("tanh")(x))
    model = set_factors(randomize(keras.Model(inputs, L.Dense(2)(x))))
    small = fold_scaling_factors(model)
    assert kinds(small).count("Rescaling") == 2
    assert relative_difference(outputs(model, samples(model)), outputs(small, samples(model))) < 1e-5


def test_a_kernel_that_is_used_directly_is_not_scaled():
    inputs = keras.Input((4,))
    dense = L.Dense(4, use_bias=False)
    x = ScalingFactor(name="factor")(dense(inputs))
    model = set_factors(randomize(keras.Model(inputs, L.Dense(2)(ops.matmul(x, dense.kernel)))))
    folded = fold_scaling_factors(model)
    assert "Rescaling" in kinds(folded)
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


def test_a_chain_whose_only_factor_is_zero_keeps_one_channel():
    model = randomize(in_front(L.Conv2D(4, 3), per="block"))
    model.get_layer("factor").factor.assign(0.0)
    small = assert_same_and_plain(model, samples(model))
    assert small.layers[0].filters == 1


def test_nested_branch_goes_as_a_whole():
    inputs = keras.Input((8, 8, 4))
    branch = keras.Sequential(
        [keras.Input((8, 8, 4)), L.Conv2D(4, 3, padding="same"), ScalingFactor(name="factor"), L.ReLU()], name="branch"
    )
    x = L.Add(name="add")([inputs, branch(inputs)])
    model = randomize(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x))))
    branch.get_layer("factor").factor.assign(0.0)
    small = assert_same_and_plain(model, samples(model))
    assert kinds(small) == ["InputLayer", "GlobalAveragePooling2D", "Dense"]


def test_of_three_branches_one_goes():
    inputs = keras.Input((4,))
    branches = [ScalingFactor(name=f"factor{index}")(L.Dense(4)(inputs)) for index in range(2)]
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Add(name="add")([inputs, *branches]))))
    model.get_layer("factor0").factor.assign(0.0)
    small = assert_same_and_plain(model, samples(model))
    assert kinds(small) == ["InputLayer", "Dense", "Add", "Dense"]


def test_a_branch_that_others_read_stays_for_them():
    inputs = keras.Input((4,))
    branch = ScalingFactor(name="factor")(L.Dense(4, name="branch")(inputs))
    model = randomize(keras.Model(inputs, [L.Add()([inputs, branch]), L.Dense(2)(branch)]))
    model.get_layer("factor").factor.assign(0.0)
    folded = fold_scaling_factors(model)
    assert not folded.get_layer("branch").kernel.numpy().any()
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


def test_a_zero_branch_that_is_broadcast_larger_stays():
    inputs = keras.Input((5, 4))
    pooled = L.GlobalAveragePooling1D(keepdims=True)(inputs)
    branch = ScalingFactor(name="factor")(L.Dense(4)(inputs))
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Add()([pooled, branch]))))
    model.get_layer("factor").factor.assign(0.0)
    folded = fold_scaling_factors(model)
    assert "Add" in kinds(folded)
    assert relative_difference(outputs(model, samples(model)), outputs(folded, samples(model))) < 1e-5


def test_attention_blocks():
    inputs = keras.Input((5, 8))
    x = L.Dense(8)(inputs)
    for index in range(2):
        y = L.LayerNormalization()(x)
        x = L.Add(name=f"attention{index}")([x, L.MultiHeadAttention(2, 4)(y, y)])
        y = L.Dropout(0.1)(L.Dense(8)(L.Dense(16, "gelu")(L.LayerNormalization()(x))))
        x = x + y
    model = randomize(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x))))
    scaled = set_factors(with_scaling_factors(model), zero=[1, 2])
    assert len(scaling_factors(scaled)) == 4
    small = assert_same_and_plain(scaled, samples(model))
    assert kinds(small).count("MultiHeadAttention") == 1
    assert kinds(small).count("LayerNormalization") == 2


class Block(L.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(width, 3, padding="same", name="conv")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, x):
        return self.conv(x) + x


class Network(keras.Model):
    def __init__(self):
        super().__init__(name="network")
        self.blocks = [Block(2, name=f"block_{index}") for index in range(2)]
        self.classes = L.Dense(3, name="classes")

    def call(self, x):
        for block in self.blocks:
            x = ops.relu(block(x))
        return self.classes(ops.mean(x, axis=(1, 2)))


def test_subclassed_model_with_factors_in_its_blocks():
    model = Network()
    model(images(1)[0])
    scaled = set_factors(with_scaling_factors(randomize(model)), zero=[1])
    small = tfprune.shrink(scaled)
    assert relative_difference(outputs(scaled, images(4)[0]), outputs(small, images(4)[0])) < 1e-5
    assert not scaling_factors(small)
    assert small.count_params() == model.count_params() - 38


def test_keep_removes_what_it_says_and_takes_factors_out_too():
    scaled = set_factors(with_scaling_factors(randomize(residual())), zero=[0])
    head = next(group for group in channel_groups(scaled).free if group.name == "head")
    small = tfprune.shrink(scaled, keep={head: [0, 2]})
    assert small.get_layer("head").filters == 2
    assert "Add" not in kinds(small)
    assert "ScalingFactor" not in kinds(small)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        scaled = set_factors(with_scaling_factors(randomize(preactivation())), zero=[2])
        assert_same_and_plain(scaled, samples(scaled), tolerance=1e-2)
    finally:
        keras.config.set_dtype_policy("float32")


def test_loads_where_tfprune_is_not_installed(tmp_path):
    scaled = set_factors(with_scaling_factors(randomize(preactivation())), zero=[1])
    small, x = tfprune.shrink(scaled), samples(scaled)
    small.save(tmp_path / "small.keras")
    found = outputs_without_tfprune(tmp_path, ["small"], x)
    assert relative_difference(outputs(small, x), found["small"]) < 1e-5


def test_a_rescaling_that_is_left_is_saved(tmp_path):
    model = randomize(in_front(L.Conv2D(4, 3, activation="silu")))
    small = tfprune.shrink(set_factors(model))
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert relative_difference(outputs(small, samples(model)), outputs(loaded, samples(model))) < 1e-6


def test_a_model_without_factors_is_copied():
    model = randomize(residual())
    assert same(outputs(model, images(2)[0]), outputs(fold_scaling_factors(model), images(2)[0]))


def test_a_negative_factor_passes_averages_but_no_maximum():
    x = samples(in_front(L.Conv2D(3, 3)))
    for pooling, left in ((L.AveragePooling2D(2), []), (L.MaxPooling2D(2), ["Rescaling"])):
        model = in_front(L.Conv2D(3, 3), pooling)
        model.get_layer("factor").factor.assign([-1.0, 0.5, 2.0])
        small = assert_same_and_plain(model, x)
        expected = ["Conv2D", type(pooling).__name__, *left, "GlobalAveragePooling2D", "Dense"]
        assert kinds(small) == expected


def test_a_scale_without_shift_takes_the_factor():
    model = in_front(L.Dense(4), L.RMSNormalization(), shape=(5,))
    model.get_layer("factor").factor.assign([0.5, 2.0, -1.0, 3.0])
    assert "Rescaling" not in kinds(assert_same_and_plain(model, samples(model)))
