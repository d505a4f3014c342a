import keras
import numpy as np
import pytest
from networks import chain, compiled, dense, images, outputs, randomize, relative_difference, residual, same, weights_of

import tfprune
from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks

L = keras.layers


def named(model):
    return {group.name: group for group in tfprune.channel_groups(model)}


def by_hand():
    """relu(x @ [[1, -2, 3], [4, 5, -6]] + [7, 8, 9]) @ [[10], [11], [12]] + 13."""
    model = dense((3, 1))
    model.get_layer("hidden").set_weights([np.array([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]), np.array([7.0, 8.0, 9.0])])
    model.get_layer("classes").set_weights([np.array([[10.0], [11.0], [12.0]]), np.array([13.0])])
    return model


@pytest.mark.parametrize(
    ("keep", "kernel", "value"),
    [
        # on (1, 1): relu gives 12, 11, 6
        ([0, 1, 2], [[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], 120 + 121 + 72 + 13),
        ([0, 2], [[1.0, 3.0], [4.0, -6.0]], 120 + 72 + 13),
        ([2, 0], [[1.0, 3.0], [4.0, -6.0]], 120 + 72 + 13),  # the order of the model stays
        ([1], [[-2.0], [5.0]], 121 + 13),
    ],
)
def test_by_hand(keep, kernel, value):
    model = by_hand()
    for indices in (keep, tuple(keep), np.array(keep), np.array(keep, "uint8")):
        small = tfprune.shrink(model, keep={named(model)["hidden"]: indices})
        assert small.get_layer("hidden").kernel.numpy().tolist() == kernel
        assert outputs(small, np.ones((1, 2)))[0].tolist() == [[value]]


def test_tied_layers_and_groups_that_are_not_named():
    model = randomize(residual())
    small = tfprune.shrink(model, keep={named(model)["stem"]: [1, 4]})
    assert [small.get_layer(name).filters for name in ("stem", "branch", "head")] == [2, 2, 7]
    for name in ("stem", "branch"):
        kernel = model.get_layer(name).kernel.numpy()[..., [1, 4]]
        expected = kernel if name == "stem" else kernel[:, :, [1, 4]]
        assert np.array_equal(small.get_layer(name).kernel.numpy(), expected)
        for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
            found, whole = (getattr(each.get_layer(f"{name}_bn"), variable).numpy() for each in (small, model))
            assert np.array_equal(found, whole[[1, 4]])
    assert np.array_equal(small.get_layer("head").kernel.numpy(), model.get_layer("head").kernel.numpy()[:, :, [1, 4]])


def test_an_empty_keep_copies_and_removes_not_even_dead_channels():
    model = by_hand()
    model.get_layer("hidden").set_weights([np.zeros((2, 3)), np.zeros(3)])
    small = tfprune.shrink(model, keep={})
    assert same(weights_of(model), weights_of(small))
    assert small.get_layer("hidden").units == 3


def sigmoid_net():
    """What is masked leaves sigmoid(0) = 0.5 behind."""
    return randomize(
        keras.Sequential([keras.Input((3,)), L.Dense(6, "sigmoid", name="hidden"), L.Dense(2, name="end")])
    )


@pytest.mark.parametrize("make", [lambda: randomize(residual()), lambda: randomize(chain()), sigmoid_net])
def test_equals_masking_first(make):
    model = make()
    groups = tfprune.channel_groups(model).free
    keep = {group: np.arange(group.size)[::2] for group in groups}
    small = tfprune.shrink(model, keep=keep)
    choice = [(group, np.arange(group.size) % 2 == 0) for group in groups]
    apply_masks(model, channel_masks(choice, ("producer", "affine")))
    shape = (16, *model.input_shape[1:])
    x = np.random.default_rng(5).normal(size=shape).astype("float32")
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5
    assert {group.name: group.size for group in tfprune.channel_groups(small).free} == {
        group.name: len(keep[group]) for group in groups
    }


def test_a_constant_of_a_channel_that_goes_is_folded():
    model = sigmoid_net()
    small = tfprune.shrink(model, keep={named(model)["hidden"]: [0, 2, 3]})
    end = model.get_layer("end")
    expected = end.bias.numpy() + 0.5 * end.kernel.numpy()[[1, 4, 5]].sum(axis=0)
    np.testing.assert_allclose(small.get_layer("end").bias.numpy(), expected, rtol=1e-6)


class OwnCall(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.end = L.Dense(4, "relu", name="hidden"), L.Dense(2, name="end")

    def call(self, x):
        return self.end(self.hidden(x))


def test_a_subclassed_model():
    model = OwnCall()
    model(np.ones((1, 3), "float32"))
    randomize(model)
    small = tfprune.shrink(model, keep={named(model)["hidden"]: [3]})
    assert np.array_equal(small.get_layer("hidden").kernel.numpy(), model.hidden.kernel.numpy()[:, [3]])


def test_a_group_that_only_approximate_sets_free():
    model = randomize(
        keras.Sequential(
            [keras.Input((3,)), L.Dense(4, name="hidden"), L.LayerNormalization(name="norm"), L.Dense(2, name="end")]
        )
    )
    group = named(model)["hidden"]
    with pytest.raises(ValueError, match="'hidden' is frozen"):
        tfprune.shrink(model, keep={group: [0, 1]})
    with pytest.warns(UserWarning, match="not exactly the masked one"):
        small = tfprune.shrink(model, keep={group: [0, 1]}, approximate=True)
    assert small.get_layer("hidden").units == 2


class TestBadInput:
    @pytest.mark.parametrize(
        "indices",
        [[], [3], [-1], [0, 0], [0.0, 1.0], [True, False, True], [[0, 1]], "0", [0, 2**40], np.zeros(0, int)],
    )
    def test_indices(self, indices):
        model = by_hand()
        with pytest.raises(ValueError, match="must be a list of different indices from 0 to 2"):
            tfprune.shrink(model, keep={named(model)["hidden"]: indices})

    def test_a_group_of_another_model(self):
        with pytest.raises(ValueError, match=r"'hidden' is not one of '.*'. Use tfprune.channel_groups"):
            tfprune.shrink(by_hand(), keep={named(by_hand())["hidden"]: [0]})

    def test_a_frozen_group(self):
        model = by_hand()
        with pytest.raises(ValueError, match="'classes' is frozen: model output"):
            tfprune.shrink(model, keep={named(model)["classes"]: [0]})

    def test_a_layer_that_holds_only_a_part_of_the_group(self):
        """`part` makes channels 2 and 3 of the sum; 0 and 1 come from elsewhere."""
        inputs = keras.Input((2,))
        part = L.Dense(2, name="part")(inputs)
        both = L.Concatenate()([L.Dense(2, name="other")(inputs), part])
        x = L.Add()([L.Dense(4, name="whole")(inputs), both])
        model = randomize(keras.Model(inputs, L.Dense(1)(x)))
        (group,) = tfprune.channel_groups(model).free
        positions = {member.layer.name: member.channels.tolist() for member in group.producers}
        with pytest.raises(ValueError, match="would leave 'part' without channels"):
            tfprune.shrink(model, keep={group: positions["other"]})

    def test_a_part_of_a_split(self):
        inputs = keras.Input((2,))
        halves = keras.ops.split(L.Dense(4, name="wide")(inputs), 2, axis=-1)
        x = L.Concatenate()([L.ReLU()(halves[0]), halves[1]])
        model = randomize(keras.Model(inputs, L.Dense(1)(x)))
        with pytest.raises(ValueError, match="a part of a split or slice without channels"):
            tfprune.shrink(model, keep={named(model)["wide"]: [2, 3]})

    @pytest.mark.sampled(1)
    @pytest.mark.parametrize("indices", [[], [0]])
    def test_leaves_the_model_as_it_was(self, indices):
        """Also where it works."""
        model = compiled(randomize(residual()), keras.optimizers.SGD(0.01, momentum=0.9))
        x, y = images(8)
        model.fit(x, y, verbose=0)
        variables = [*model.weights, *model.optimizer.variables]
        before = [variable.numpy().copy() for variable in variables]
        nodes = [len(layer._inbound_nodes) for layer in model.layers]
        try:
            tfprune.shrink(model, keep={named(model)["stem"]: indices})
            assert indices
        except ValueError:
            assert not indices
        assert same(before, [variable.numpy() for variable in variables])
        assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
        assert model.compiled
