"""Whole blocks: which can go, that the rest computes what it did, and by what they are chosen."""

import itertools

import keras
import numpy as np
import pytest
from networks import randomize, same, weights_of

import tfprune
from tfprune import Budget, remove_layers, residual_blocks
from tfprune.criteria import BlockCriterion, BlockInfluence, LossChange
from tfprune.data import Reader, inputs_of
from tfprune.graph.exclude import resolve_exclude
from tfprune.shrinking.blocks import STATISTICS, Blocks

L = keras.layers


class Listed(BlockCriterion):
    """Blocks go in the order of a list; it needs no data."""

    def __init__(self, *names):
        self.names = names

    def score(self, view):
        return self.names.index(view.name) if view.name in self.names else len(self.names)


def bottleneck(x, name, width=6, strides=1, without=()):
    shortcut = x
    if strides > 1:
        shortcut = L.Conv2D(width, 1, strides, name=f"{name}_projection")(x)
    if name in without:
        return shortcut
    y = L.ReLU()(L.BatchNormalization(name=f"{name}_bn1")(L.Conv2D(3, 1, strides, name=f"{name}_1")(x)))
    y = L.ReLU()(L.BatchNormalization(name=f"{name}_bn2")(L.Conv2D(3, 3, padding="same", name=f"{name}_2")(y)))
    y = L.BatchNormalization(name=f"{name}_bn3")(L.Conv2D(width, 1, name=f"{name}_3")(y))
    return L.ReLU(name=f"{name}_relu")(L.Add(name=name)([shortcut, y]))


def resnet(without=()):
    inputs = keras.Input((8, 8, 2))
    x = L.ReLU()(L.Conv2D(6, 3, padding="same", name="stem")(inputs))
    for name, strides in (("a", 1), ("b", 1), ("c", 2), ("d", 1)):
        x = bottleneck(x, name, strides=strides, without=without)
    return keras.Model(inputs, L.Dense(3, name="classes")(L.GlobalAveragePooling2D()(x)))


def inverted(without=()):
    """Blocks of MobileNetV2: wide inside, no activation behind the addition, none where the shape changes."""
    x = inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="stem")(x)
    for name, width, strides in (("a", 4, 1), ("b", 6, 2), ("c", 6, 1), ("d", 6, 1)):
        if name in without:
            continue
        y = L.ReLU(6.0)(L.BatchNormalization(name=f"{name}_bn1")(L.Conv2D(12, 1, name=f"{name}_expand")(x)))
        y = L.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=f"{name}_depthwise")(y)
        y = L.ReLU(6.0)(L.BatchNormalization(name=f"{name}_bn2")(y))
        y = L.BatchNormalization(name=f"{name}_bn3")(L.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(y))
        x = L.Add(name=name)([x, y]) if name != "b" else y
    return keras.Model(inputs, L.Dense(3, name="classes")(L.GlobalAveragePooling2D()(x)))


def transformer(without=()):
    """Pre-norm: each branch begins with a normalization, and attention and MLP are a block each."""
    x = inputs = keras.Input((5, 8))
    for index in range(2):
        if f"attention{index}" not in without:
            y = L.LayerNormalization(name=f"norm_a{index}")(x)
            x = L.Add(name=f"attention{index}")([x, L.MultiHeadAttention(2, 4, name=f"heads{index}")(y, y)])
        if f"mlp{index}" not in without:
            y = L.LayerNormalization(name=f"norm_m{index}")(x)
            y = L.Dense(8, name=f"out{index}")(L.Dense(16, "gelu", name=f"in{index}")(y))
            x = L.Add(name=f"mlp{index}")([x, y])
    x = L.LayerNormalization(name="last")(x)
    return keras.Model(inputs, L.Dense(3, "softmax", name="classes")(L.GlobalAveragePooling1D()(x)))


def samples(model, count=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype("float32")


def answers(model, x):
    return np.asarray(model(x, training=False), np.float64)


def copied_by_name(model, source):
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


@pytest.mark.parametrize(
    ("build", "order", "stays"),
    [
        (resnet, ["d", "b"], {"c"}),
        (transformer, ["attention1", "mlp0"], set()),
        pytest.param(inverted, ["a", "d"], set(), marks=pytest.mark.slow),
    ],
)
def test_removal_equals_the_network_that_never_had_the_blocks(build, order, stays):
    model = build()
    randomize(model)
    before, x = weights_of(model), samples(model)
    small = remove_layers(model, 2, criterion=Listed(*order))
    by_hand = copied_by_name(build(without=order), model)
    np.testing.assert_allclose(answers(small, x), answers(by_hand, x), rtol=1e-6, atol=1e-6)
    assert small.count_params() == by_hand.count_params() < model.count_params()
    assert [layer.name for layer in small.layers if layer.weights] == [
        layer.name for layer in by_hand.layers if layer.weights
    ]
    assert {block.name for block in residual_blocks(model).blocks if block.stays} == stays
    assert {f"{name}_relu" for name in order} & {layer.name for layer in small.layers} == set()  # one ReLU is enough
    assert same(before, weights_of(model))


def turned(kernel):
    """One block that adds its input, multiplied by a kernel."""
    inputs = keras.Input((2,))
    branch = L.Dense(2, use_bias=False, name="branch")(inputs)
    model = keras.Model(inputs, L.Dense(2, use_bias=False, name="head")(L.Add(name="block")([inputs, branch])))
    model.set_weights([np.array(kernel, "float32"), np.eye(2, dtype="float32")])
    return model


def influence(model, data, angular=False):
    (block,) = residual_blocks(model, criterion=BlockInfluence(angular), data=data).blocks
    return block.score


def test_influence_by_hand():
    quarter = turned([[0.0, 1.0], [-1.0, 0.0]])  # adds the input turned by 90 degrees: the output is turned by 45
    x = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert influence(quarter, x) == pytest.approx(1 - np.sqrt(0.5), abs=1e-6)
    assert influence(quarter, x, angular=True) == pytest.approx(0.25, abs=1e-6)
    with_zero = np.array([[3.0, 0.0], [0.0, 0.0]])  # no angle: the cosine counts as 0.5
    assert influence(quarter, with_zero) == pytest.approx((1 - np.sqrt(0.5) + 0.5) / 2, abs=1e-6)
    assert influence(quarter, with_zero, angular=True) == pytest.approx((1 / 4 + 1 / 3) / 2, abs=1e-6)


def test_a_block_that_adds_nothing_has_no_influence():
    model = turned(np.zeros((2, 2)))
    x = np.random.default_rng(0).normal(size=(100, 2)) * 10.0 ** np.arange(-10, 10).repeat(5)[:, None]
    assert influence(model, x) == influence(model, x, angular=True) == 0.0
    assert influence(turned(np.eye(2)), x) == 0.0  # it only doubles


def stack(norm=False, activation=None):
    """Three blocks that can go, and one that cannot."""
    x = inputs = keras.Input((5, 4))
    for index in range(3):
        y = L.Dense(4, name=f"branch{index}")(x)
        x = L.Add(name=f"block{index}")([x, L.BatchNormalization()(y) if norm else y])
    shortcut, y = L.Dense(3, name="projection")(x), L.Dense(3, name="second")(L.Dense(4, name="first")(x))
    x = L.GlobalAveragePooling1D()(L.Add(name="wide")([shortcut, y]))
    return keras.Model(inputs, L.Activation(activation)(x))


def test_influence_and_change_of_the_loss_by_definition():
    model = stack(activation="softmax")
    randomize(model, seed=3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, before = samples(model, 70), weights_of(model)  # two batches, of which one is smaller
    y = np.arange(70) % 3
    names = [f"block{index}" for index in range(3)]
    tensors = keras.Model(model.input, [model.input, *(model.get_layer(name).output for name in names)])
    hidden = [np.asarray(each, np.float64) for each in tensors(x)]
    cosines = [(a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)) for a, b in itertools.pairwise(hidden)]
    batches = list(Reader((x, y), inputs_of(model)))
    found = Blocks(model, resolve_exclude(model, None)).statistics(STATISTICS, batches)
    np.testing.assert_allclose([each["cosine_distance"] for each in found], [1 - c.mean() for c in cosines], atol=1e-6)
    angles = [np.arccos(c).mean() / np.pi for c in cosines]
    np.testing.assert_allclose([each["angular_distance"] for each in found], angles, atol=1e-6)
    least = int(np.argmin([each["cosine_distance"] for each in found]))
    small = remove_layers(model, 1, data=x)
    gone = {layer.name for layer in model.layers} - {layer.name for layer in small.layers}
    assert gone == {f"block{least}", f"branch{least}"}
    dense, left = answers(model, x), answers(small, x)
    divergence = (dense * np.log(dense / left)).sum(-1).mean()
    change = (np.log(dense[range(70), y]) - np.log(left[range(70), y])).mean()
    assert found[least]["divergence_change"] == pytest.approx(divergence, rel=1e-4)
    assert found[least]["compiled_change"] == pytest.approx(change, rel=1e-3)
    assert same(before, weights_of(model))


class Mixer(L.Layer):
    """A layer of the user's with a residual addition inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.dense = L.LayerNormalization(), L.Dense(4)

    def call(self, inputs):
        return inputs + self.dense(self.norm(inputs))


def test_blocks_inside_custom_layers_and_models_that_are_called_twice():
    inputs = keras.Input((3, 4))
    inner = keras.Sequential([keras.Input((3, 4)), L.Dense(4), Mixer(name="mixer")], name="inner")
    model = keras.Model(inputs, L.Dense(2)(inner(inner(inputs))))
    x = samples(model)
    (block,) = residual_blocks(model, data=x).blocks
    once = keras.Sequential([inner.layers[0]])
    small = remove_layers(model, 1, data=x)
    expected = model.layers[-1](once(once(x)))
    np.testing.assert_allclose(answers(small, x), expected, rtol=1e-5, atol=1e-6)
    first, second = once(x), once(inner(x))  # what comes into the block, in its two calls
    pairs = [(np.asarray(each), np.asarray(inner.layers[1](each))) for each in (first, second)]
    cosines = [(a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1)) for a, b in pairs]
    assert block.score == pytest.approx(1 - np.mean(cosines), abs=1e-5)


def test_budget_takes_as_few_blocks_as_it_must():
    model = stack()
    order = Listed("block0", "block1", "block2")
    exactly_two = remove_layers(model, budget=Budget(parameters=model.count_params() - 40), criterion=order)
    assert exactly_two.count_params() == model.count_params() - 40
    assert remove_layers(
        model, budget=Budget(parameters=model.count_params() - 21), criterion=order
    ).count_params() == (model.count_params() - 40)
    with pytest.raises(
        ValueError, match=r"cannot be met. Without all blocks that can go .* 'wide' stays, as its short"
    ):
        remove_layers(model, budget=Budget(parameters=0.01), criterion=order)


@pytest.mark.slow
def test_statistics_are_measured_anew_with_data():
    model = stack(norm=True)
    x = samples(model, 16)
    bare, fed = (remove_layers(model, 1, criterion=Listed("block0"), data=data) for data in (None, x))
    assert not same(weights_of(bare), weights_of(fed))
    tfprune.recalibrate(bare, x)
    assert same(weights_of(bare), weights_of(fed))


def test_excluded_blocks_stay():
    model = stack()
    excluded = [model.get_layer("branch1")]
    blocks = residual_blocks(model, exclude=excluded).blocks
    assert {block.name: block.stays for block in blocks}["block1"] == "'branch1' is excluded"
    with pytest.raises(ValueError, match=r"Of 3 residual blocks only 2 .*'block1' stays, as 'branch1' is excluded"):
        remove_layers(model, 3, criterion=Listed(), exclude=excluded)


def test_what_is_refused():
    model = turned(np.eye(2))
    with pytest.raises(ValueError, match="Give either count or budget"):
        remove_layers(model, data=np.eye(2))
    with pytest.raises(ValueError, match=r"BlockInfluence needs data: .* Pass data=x"):
        remove_layers(model, 1)
    with pytest.raises(TypeError, match="criterion must score residual blocks"):
        remove_layers(model, 1, criterion=tfprune.criteria.l2_norm, data=np.eye(2))
    with pytest.raises(ValueError, match="count must be a whole number"):
        remove_layers(model, 0, data=np.eye(2))
    with pytest.raises(ValueError, match="has no loss"):
        remove_layers(model, 1, criterion=LossChange("compiled"), data=(np.eye(2), np.eye(2)))
    with pytest.raises(TypeError, match="needs labels"):
        remove_layers(model, 1, criterion=LossChange("compiled"), data=np.eye(2))
    with pytest.raises(ValueError, match=r"No residual block of 'plain' can be removed\. It has no others"):
        remove_layers(keras.Sequential([keras.Input((2,)), L.Dense(2)], name="plain"), 1, data=np.eye(2))
    model.get_layer("branch").kernel.assign(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="NaN or infinite for the blocks"):
        remove_layers(model, 1, data=np.eye(2))


def test_table_names_what_stays():
    table = residual_blocks(stack()).to_markdown()
    assert "| wide | first | second | its shortcut is a projection, 'projection' |" in table
