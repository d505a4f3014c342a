import keras
import numpy as np
import pytest
from helpers_graph import arrays, compare, frozen_reasons, randomize, shrunken_equals_masked
from keras import ops

import tfprune
from tfprune.graph import channel_groups, functional, nested, walk
from tfprune.graph.profiling import profile
from tfprune.shrinking.removal import shrink

L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


def test_this_checkout_is_tested():
    assert tfprune.__file__.startswith(str(__import__("pathlib").Path(__file__).parents[2]))


class Block(L.Layer):
    """A residual block: a layer made of layers."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(width, 3, padding="same", name="conv")
        self.norm = L.BatchNormalization(name="norm")

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(self.conv.compute_output_shape(shape))

    def call(self, x, training=None):
        return ops.relu(self.norm(self.conv(x), training=training)) + x


class Network(keras.Model):
    """A subclassed model with blocks, arithmetic and a slice."""

    def __init__(self):
        super().__init__(name="network")
        self.stem = L.Conv2D(6, 3, name="stem")
        self.blocks = [Block(6, name=f"block_{index}") for index in range(2)]
        self.head = L.Dense(5, activation="relu", name="head")
        self.classes = L.Dense(3, name="classes")

    def call(self, inputs, training=False):
        x = self.stem(inputs)
        for block in self.blocks:
            x = block(x, training=training)
        x = ops.mean(x, axis=(1, 2))
        return self.classes(self.head(x) * 2.0)


def built(model, *shape):
    model(np.zeros(shape, "float32"))
    return model


def samples(*shape):
    return np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")


def test_a_subclassed_model_shrinks_to_a_functional_one(tmp_path):
    model = built(Network(), 2, 8, 8, 3)
    small = shrunken_equals_masked(
        model,
        samples(8, 8, 3),
        tmp_path,
        free={"stem", "conv", "head"},  # the blocks are tied to the stem
    )
    assert type(small) is type(keras.Model(small.inputs, small.outputs))
    assert small.name == "network"
    assert small.get_layer("stem").filters == small.get_layer("block_0").get_layer("conv").filters < 6
    assert profile(small).macs < profile(model).macs


def test_the_copy_trains_and_keeps_the_compile_settings():
    model = built(Network(), 2, 8, 8, 3)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    with pytest.warns(UserWarning, match="No channel"):
        small = shrink(model)
    assert isinstance(small.optimizer, keras.optimizers.SGD)
    moving = small.get_layer("block_1").get_layer("norm").moving_mean
    before = moving.numpy()
    small.fit(samples(8, 8, 3), np.zeros((4, 3)), verbose=0)
    assert np.abs(moving.numpy() - before).max() > 0  # training is not fixed to inference


def test_views_are_the_same_each_time():
    model = built(Network(), 2, 8, 8, 3)
    assert functional(model) is functional(model)
    first, second = ([id(each) for node in walk(model) for each in node.outputs] for _ in range(2))
    assert first == second
    blocks = [node for node in walk(model) if isinstance(node.operation, Block)]
    assert len(blocks) == 2
    assert nested(blocks[0]) is nested(blocks[0])


def test_exclude_takes_layers_inside_blocks():
    model = built(Network(), 2, 8, 8, 3)
    groups = channel_groups(model, exclude=[model.blocks[0].conv])
    assert "'conv' is excluded" in next(group for group in groups if group.name == "stem").frozen


def test_blocks_in_functional_and_sequential_models(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = Block(6, name="one")(L.Conv2D(6, 1, name="stem")(inputs))
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(Block(6, name="two")(x, training=None))))
    assert shrunken_equals_masked(model, tmp_path=tmp_path).get_layer("stem").filters < 6
    stack = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(6, 1, name="stem"), Block(6), L.Flatten(), L.Dense(2)])
    assert shrunken_equals_masked(stack, tmp_path=tmp_path).get_layer("stem").filters < 6


def test_a_block_called_twice_is_shared():
    inputs = keras.Input((8, 8, 3))
    block, x = Block(6, name="block"), L.Conv2D(6, 1, name="stem")(inputs)
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(block(block(x)))))
    small = shrunken_equals_masked(model)
    assert len([node for node in walk(small) if nested(node)]) == 2
    assert small.get_layer("block").get_layer("conv").filters < 6


def test_a_block_called_on_different_shapes_is_one_with_open_sizes():
    inputs = keras.Input((8, 8, 3))
    block, x = Block(6, name="block"), L.Conv2D(6, 1, name="stem")(inputs)
    x = block(L.MaxPooling2D()(block(x)))
    small = shrunken_equals_masked(keras.Model(inputs, L.Dense(2)(L.Flatten()(x))))
    assert small.get_layer("block").get_layer("conv").filters < 6


def test_a_block_called_on_different_shapes_in_different_places_says_what_to_do():
    inputs, half, block = keras.Input((8, 8, 6)), keras.Input((4, 4, 6)), Block(6, name="block")
    inner = keras.Model(half, block(half), name="inner")
    outputs = L.Dense(2)(L.Flatten()(inner(L.MaxPooling2D()(block(inputs)))))
    with pytest.raises(ValueError, match="one layer object for each"):
        channel_groups(keras.Model(inputs, outputs))


class Mixed(keras.Model):
    """Two inputs by name, two outputs by name, a nested model of each kind."""

    def __init__(self):
        super().__init__()
        self.left, self.right = L.Dense(6, name="left"), L.Dense(6, name="right")
        self.inner = keras.Sequential([keras.Input((6,)), L.Dense(7, name="inner"), L.ReLU()], name="sequential")
        self.one, self.two = L.Dense(2, name="one"), L.Dense(1, name="two")

    def call(self, inputs):
        x = self.inner(ops.tanh(self.left(inputs["a"])) + self.right(inputs["b"]))
        return {"one": self.one(x[:, :4]), "two": self.two(x)}


def test_dict_inputs_and_outputs_and_nested_models(tmp_path):
    model = Mixed()
    data = {"a": samples(3), "b": samples(5)}
    model(data)
    small = shrunken_equals_masked(model, data, tmp_path, free={"left", "right", "inner"})
    assert set(small(data)) == {"one", "two"}
    assert small.get_layer("sequential").get_layer("inner").units < 7


class TwoArguments(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.classes = L.Dense(6, name="hidden"), L.Dense(2, name="classes")

    def call(self, first, second):
        return self.classes(self.hidden(first) * self.hidden(second))


def test_several_arguments_are_refused():
    model = TwoArguments()
    model(samples(3), samples(3))
    with pytest.raises(ValueError, match="second"):
        channel_groups(model)


class Embedded(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding, self.hidden, self.classes = L.Embedding(9, 4), L.Dense(6, name="hidden"), L.Dense(2)

    def call(self, tokens):
        return self.classes(ops.mean(self.hidden(self.embedding(tokens)), axis=1))


def test_tokens_stay_integers():
    model = Embedded()
    tokens = np.random.default_rng(0).integers(0, 9, (4, 5))
    model(tokens)
    assert keras.backend.is_int_dtype(functional(model).inputs[0].dtype)
    assert shrunken_equals_masked(model, tokens, fraction=0.6).get_layer("hidden").units < 6


class WithCall(keras.Model):
    """A functional model whose own call does more than its graph."""

    def call(self, inputs):
        return super().call(inputs)[:, ::-1] * 3.0


class Functional(keras.Model):
    """A functional model with a constructor of its own."""

    def __init__(self, width):
        inputs = keras.Input((4,))
        super().__init__(inputs, L.Dense(2, name="classes")(L.Dense(width, "relu", name="hidden")(inputs)))


def test_functional_subclasses():
    own = Functional(6)
    assert shrunken_equals_masked(own).get_layer("hidden").units < 6
    inputs = keras.Input((4,))
    model = WithCall(inputs, L.Dense(2, name="classes")(L.Dense(6, "relu", name="hidden")(inputs)))
    model(samples(4))
    outer = keras.Input((4,))
    around = keras.Model(outer, model(outer))
    assert shrunken_equals_masked(model, samples(4)).get_layer("hidden").units < 6
    small = shrunken_equals_masked(around, samples(4))
    compare(around, small, samples(4))


class RawVariable(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.classes = L.Dense(6, name="hidden"), L.Dense(2)
        self.scale = self.add_weight(shape=(6,), name="scale")

    def call(self, x):
        return self.classes(self.hidden(x) * self.scale)


class ComputedVariable(RawVariable):
    def call(self, x):
        return self.classes(self.hidden(x) * ops.exp(self.scale))


class TiedVariable(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = L.Dense(6, name="hidden")

    def call(self, x):
        return ops.matmul(self.hidden(x), self.hidden.kernel)


class Branches(RawVariable):
    def __init__(self):
        keras.Model.__init__(self)
        self.hidden, self.classes = L.Dense(6, name="hidden"), L.Dense(2)

    def call(self, x, training=False):
        x = self.hidden(x)
        return self.classes(x + ops.tanh(x) if training else x)


class AddsLoss(Branches):
    def call(self, x):
        x = self.hidden(x)
        self.add_loss(ops.sum(x))
        return self.classes(x)


class Loops(Branches):
    def call(self, x):
        return self.classes(self.hidden(x)) if ops.sum(x) > 0 else self.classes(self.hidden(-x))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (RawVariable, "directly"),
        (ComputedVariable, "directly"),
        (TiedVariable, "directly"),
        (Branches, "in training"),
        (AddsLoss, "add_loss"),
        (Loops, "layer by layer"),
    ],
)
def test_what_cannot_be_read_says_why(make, reason):
    model = built(make(), 2, 6)
    with pytest.raises(ValueError, match=reason) as raised:
        channel_groups(model)
    assert "keras.Model(inputs, outputs)" in str(raised.value)


class Scaled(L.Layer):
    """A layer made of a layer, and a variable that it uses directly."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(6)

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(6,), name="scale", initializer="random_normal")

    def call(self, x):
        return self.inner(x) * self.scale


def test_a_layer_that_uses_its_variable_directly_is_frozen():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(Scaled(name="scaled")(L.Dense(6, name="before")(inputs))))
    assert "no rule for Scaled" in frozen_reasons(model)["before"]
    randomize(model)
    with pytest.warns(UserWarning, match="No channel"):
        small = shrink(model)
    compare(model, small, arrays(model))
    assert small.get_layer("scaled").scale is not model.get_layer("scaled").scale


def test_nested_several_deep_and_shared():
    deep = keras.Sequential([keras.Input((6,)), L.Dense(6, "tanh", name="deepest")], name="deep")
    a = keras.Input((6,))
    middle = keras.Model(a, deep(a)[:, 1:] + deep(L.Dense(6, name="first")(a))[:, :-1], name="middle")
    inputs = [keras.Input((3,), name="p"), keras.Input((3,), name="q")]
    shared = L.Dense(6, name="shared")
    outputs = [L.Dense(2)(middle(shared(each))) for each in inputs]
    model = keras.Model(inputs, outputs)
    assert "uses" not in frozen_reasons(model)["shared"]
    small = shrunken_equals_masked(model)
    assert small.count_params() < model.count_params()


def test_a_layer_shared_by_maps_of_different_sizes():
    inputs = [keras.Input((8, 8, 3)), keras.Input((4, 4, 3))]
    conv = L.Conv2D(6, 3, name="conv")
    outputs = [L.Dense(2)(L.GlobalMaxPooling2D()(conv(each))) for each in inputs]
    assert shrunken_equals_masked(keras.Model(inputs, outputs)).get_layer("conv").filters < 6


def _dense(name, size):
    return keras.Sequential([keras.Input((6,)), L.Dense(8, "relu", name=f"{name}_hidden"), L.Dense(size)], name=name)


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher

    def call(self, x):
        return self.student(x)


def test_a_teacher_that_call_leaves_out_is_left_alone():
    model = built(Distiller(_dense("student", 3), _dense("teacher", 3)), 2, 6)
    assert [group.name for group in channel_groups(model, exclude=[model.teacher]).free] == ["student_hidden"]
    small = tfprune.prune_channels(model, 0.5)
    alone = tfprune.prune_channels(model.student, 0.5)
    assert small.count_params() == alone.count_params() == 6 * 4 + 4 + 4 * 3 + 3
    compare(alone, small, samples(6))
    assert model.teacher.layers[0].units == 8


class Adversarial(keras.Model):
    def __init__(self):
        super().__init__()
        self.generator, self.critic = _dense("generator", 6), _dense("critic", 1)


def test_a_model_without_a_call_names_what_it_holds():
    with pytest.raises(ValueError, match=r"no call\(\).*model\.generator, model\.critic"):
        channel_groups(Adversarial())


class Sampling(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, tensors):
        mean, spread = tensors
        return mean + ops.exp(spread) * keras.random.normal(ops.shape(mean), seed=self.seed)


class Variational(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = L.Dense(8, "relu", name="encoder"), L.Dense(8, "relu", name="decoder")
        self.mean, self.spread, self.out = L.Dense(3, name="mean"), L.Dense(3, name="spread"), L.Dense(6, name="out")
        self.sample = Sampling(name="sample")

    def call(self, x):
        x = self.encoder(x)
        return self.out(self.decoder(self.sample([self.mean(x), self.spread(x)])))


class SamplesItself(Variational):
    def call(self, x):
        x = self.encoder(x)
        noise = keras.random.normal(ops.shape(self.mean(x)))
        return self.out(self.decoder(self.mean(x) + self.spread(x) * noise))


@pytest.mark.filterwarnings("ignore:`build")
def test_random_numbers_of_the_shape_of_the_batch():
    groups = {group.name: "; ".join(group.frozen) for group in channel_groups(built(Variational(), 2, 6))}
    assert groups["encoder"] == groups["decoder"] == ""
    assert "random numbers" in groups["mean"]
    with pytest.raises(ValueError, match=r"random numbers.*in a layer of its own"):
        channel_groups(built(SamplesItself(), 2, 6))
