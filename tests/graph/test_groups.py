import keras
import numpy as np
import pytest
from keras import ops
from networks import chain, dense, residual, same, weights_of

from tfprune.graph import Call, channel_groups, rule

L = keras.layers


def by_name(model, exclude=None):
    return {group.name: group for group in channel_groups(model, exclude)}


def roles(group):
    return {(m.layer.name, m.variable.name, m.axis % len(m.variable.shape), m.role) for m in group.members}


def test_a_chain_has_one_group_per_layer():
    groups = channel_groups(chain())
    assert [(g.name, g.size, g.frozen) for g in groups] == [
        ("first", 4, ()),
        ("second", 6, ()),
        ("classes", 3, ("model output",)),
    ]
    assert [g.name for g in groups.free] == ["first", "second"]
    assert len(groups) == 3


def test_members_of_a_group():
    assert roles(by_name(chain())["first"]) == {
        ("first", "kernel", 3, "producer"),
        ("first_bn", "gamma", 0, "affine"),
        ("first_bn", "beta", 0, "affine"),
        ("first_bn", "moving_mean", 0, "statistics"),
        ("first_bn", "moving_variance", 0, "statistics"),
        ("second", "kernel", 2, "consumer"),
    }
    assert roles(by_name(chain())["second"]) == {
        ("second", "kernel", 3, "producer"),
        ("second", "bias", 0, "affine"),
        ("classes", "kernel", 0, "consumer"),
    }


def test_without_gamma_the_mean_must_be_zero_too():
    model = keras.Sequential([keras.Input((2,)), L.Dense(3), L.BatchNormalization(scale=False, name="bn"), L.Dense(1)])
    (group,) = channel_groups(model).free
    affine = {m.variable.name for m in group.with_role("affine") if m.layer.name == "bn"}
    assert affine == {"beta", "moving_mean"}


def test_an_addition_ties():
    groups = by_name(residual())
    assert list(groups) == ["stem", "head", "classes"]
    assert [m.layer.name for m in groups["stem"].producers] == ["stem", "branch"]
    for member in groups["stem"].producers:
        assert member.channels.tolist() == member.positions.tolist() == [0, 1, 2, 3, 4]


def test_a_concatenation_lines_up():
    inputs = keras.Input((4, 4, 1))
    parts = [L.Conv2D(2, 1, name="a")(inputs), L.Conv2D(3, 1, name="b")(inputs)]
    x = L.Conv2D(1, 1, name="reader")(L.Concatenate()(parts))
    groups = by_name(keras.Model(inputs, x))
    read = {name: groups[name].with_role("consumer")[0] for name in ("a", "b")}
    assert read["a"].positions.tolist() == [0, 1]
    assert read["b"].positions.tolist() == [2, 3, 4]
    assert read["b"].channels.tolist() == [0, 1, 2]


def test_a_concatenation_that_is_added_later_ties_part_by_part():
    inputs = keras.Input((4, 4, 1))
    a, b = L.Conv2D(2, 1, name="a")(inputs), L.Conv2D(3, 1, name="b")(inputs)
    whole = L.Conv2D(5, 1, name="whole")(inputs)
    x = L.Conv2D(1, 1)(L.Add()([L.Concatenate()([a, b]), whole]))
    (group,) = channel_groups(keras.Model(inputs, x)).free
    # The kernel of "whole" is ranked as one, so all three are one group of five channels.
    assert group.size == 5
    assert {m.layer.name: m.channels.tolist() for m in group.producers} == {
        "a": [0, 1],
        "b": [2, 3, 4],
        "whole": [0, 1, 2, 3, 4],
    }


def test_a_tensor_joined_to_itself_gives_each_channel_two_places():
    inputs = keras.Input((4, 4, 1))
    x = L.Conv2D(2, 1, name="a")(inputs)
    model = keras.Model(inputs, L.Conv2D(1, 1, name="reader")(L.Concatenate()([x, x])))
    (reader,) = by_name(model)["a"].with_role("consumer")
    assert reader.positions.tolist() == [0, 1, 2, 3]
    assert reader.channels.tolist() == [0, 1, 0, 1]
    assert reader.mark(np.array([False, True])).tolist() == [False, True, False, True]


def test_flatten_interleaves_channels():
    model = keras.Sequential([keras.Input((2, 1, 1)), L.Conv2D(3, 1, name="a"), L.Flatten(), L.Dense(1)])
    (reader,) = by_name(model)["a"].with_role("consumer")
    assert reader.channels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_depthwise_multiplier_repeats_channels():
    layer = L.DepthwiseConv2D(1, depth_multiplier=2, name="depthwise")
    model = keras.Sequential([keras.Input((2, 2, 1)), L.Conv2D(3, 1, name="a"), layer, L.Conv2D(1, 1, name="b")])
    group = by_name(model)["a"]
    slices = {(m.layer.name, m.variable.name): m.channels.tolist() for m in group.members}
    assert slices["depthwise", "kernel"] == [0, 1, 2]
    assert slices["depthwise", "bias"] == [0, 0, 1, 1, 2, 2]
    assert slices["b", "kernel"] == [0, 0, 1, 1, 2, 2]


def test_a_shared_layer_ties_its_inputs():
    inputs = keras.Input((4, 4, 1))
    a, b = L.Conv2D(3, 1, name="a")(inputs), L.Conv2D(3, 1, name="b")(inputs)
    shared = L.Conv2D(2, 1, name="shared")
    model = keras.Model(inputs, L.Conv2D(1, 1)(L.Concatenate()([shared(a), shared(b)])))
    tied, made = channel_groups(model).free
    assert {m.layer.name for m in tied.producers} == {"a", "b"}
    assert tied.size == 3
    assert [m.layer.name for m in made.producers] == ["shared"]
    assert made.size == 2
    (reader,) = made.with_role("consumer")
    assert reader.channels.tolist() == [0, 1, 0, 1]


def test_nested_models_are_followed():
    inner = keras.Sequential([keras.Input((4, 4, 2)), L.Conv2D(3, 1, name="inside")], name="inner")
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, L.Conv2D(1, 1, name="outside")(inner(inputs)))
    group = by_name(model)["inside"]
    assert [m.layer.name for m in group.with_role("consumer")] == ["outside"]
    assert group.frozen == ()


class Unknown(L.Layer):
    def call(self, x):
        return x[..., ::-1]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Unknown(name="mystery"), "no rule for Unknown 'mystery'"),
        (L.Softmax(name="soft"), "'soft' mixes channels"),
        (L.Activation(lambda x: x - ops.mean(x, axis=-1, keepdims=True), name="own"), "activation <lambda> in 'own'"),
    ],
)
def test_what_cannot_be_removed_is_frozen_and_says_why(layer, reason):
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(3, 1, name="a"), layer, L.Conv2D(1, 1)])
    group = by_name(model)["a"]
    assert any(reason in why for why in group.frozen), group.frozen
    assert channel_groups(model).free == ()


def test_a_constant_that_nothing_can_absorb_is_frozen():
    sigmoid = L.Activation("sigmoid")
    head = [keras.Input((4, 4, 1)), L.Conv2D(3, 1, name="a"), sigmoid]
    assert by_name(keras.Sequential([*head, L.Conv2D(1, 1)]))["a"].frozen == ()
    (reason,) = by_name(keras.Sequential([*head, L.Conv2DTranspose(1, 1, name="reader")]))["a"].frozen
    assert reason == "a removed channel would leave a constant that 'reader' cannot absorb"


def test_an_addition_to_the_input_freezes():
    inputs = keras.Input((4, 4, 2))
    x = L.Add()([inputs, L.Conv2D(2, 1, name="a")(inputs)])
    groups = by_name(keras.Model(inputs, L.Conv2D(1, 1, name="b")(L.Conv2D(3, 1, name="c")(x))))
    assert groups["a"].frozen == ("model input",)
    assert groups["c"].frozen == ()


def test_every_output_is_frozen():
    inputs = keras.Input((4, 4, 2))
    x = L.Conv2D(2, 1, name="a")(inputs)
    groups = by_name(keras.Model(inputs, [x, L.Conv2D(3, 1, name="b")(x)]))
    assert groups["a"].frozen == groups["b"].frozen == ("model output",)


def test_excluded_by_object_or_predicate():
    model = residual()
    branch = model.get_layer("branch")
    for exclude in ([branch], (branch,), {branch}, lambda layer: layer is branch):
        groups = by_name(model, exclude)
        assert groups["stem"].frozen == ("'branch' is excluded",)
        assert groups["head"].frozen == ()


def test_a_layer_of_a_nested_model_can_be_excluded():
    inner = keras.Sequential([keras.Input((2,)), L.Dense(3, name="inside")])
    inputs = keras.Input((2,))
    model = keras.Model(inputs, L.Dense(1)(inner(inputs)))
    assert by_name(model, [inner.get_layer("inside")])["inside"].frozen == ("'inside' is excluded",)


@pytest.mark.parametrize("exclude", ["hidden", ["hidden"], 3, L.Dense(1)])
def test_exclude_of_another_kind_is_refused(exclude):
    model = dense()
    before = weights_of(model)
    with pytest.raises(TypeError, match=r"exclude must be a list of layer objects.*get_layer\(name\)"):
        channel_groups(model, exclude)
    assert same(before, weights_of(model))


def test_a_foreign_layer_is_refused():
    with pytest.raises(ValueError, match=r"not in the model 'sequential.*'stranger'"):
        channel_groups(dense(), [L.Dense(1, name="stranger")])


class Gain(L.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain")

    def call(self, x):
        return x * self.gain


def test_a_rule_of_ones_own_joins_in():
    seen = []

    @rule(Gain)
    def gain(call: Call) -> np.ndarray:
        seen.append((call.layer.name, call.input_shapes, call.output_shapes))
        call.bind(call.layer.gain, 0, call.along(call.inputs[0], -1), "affine")
        return call.inputs[0]

    model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), Gain(name="gain"), L.Dense(1)])
    (group,) = channel_groups(model).free
    assert ("gain", "gain", 0, "affine") in roles(group)
    assert seen == [("gain", [(3,)], [(3,)])]


def test_a_rule_does_not_hold_for_subclasses():
    model = keras.Sequential([keras.Input((2,)), type("MyDense", (L.Dense,), {})(3, name="a"), L.Dense(1, name="b")])
    groups = by_name(model)
    assert list(groups) == ["b"]


def test_a_lora_kernel_freezes():
    model = dense()
    model.get_layer("hidden").enable_lora(1)
    assert "hidden" not in [group.name for group in channel_groups(model).free]


def test_printed_and_as_dict():
    groups = channel_groups(residual())
    assert groups.to_dict()["groups"][0] == {
        "name": "stem",
        "channels": 5,
        "channels_after_shrink": 5,
        "made_by": ["stem", "branch"],
        "read_by": ["branch", "head"],
        "frozen": [],
    }
    text = str(groups)
    assert "Channel groups of residual: 2 of 3 free" in text
    assert "model output" in text
