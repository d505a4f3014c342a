"""Which channels the gammas of BatchNormalization switch."""

import keras
import numpy as np
import pytest
from networks import chain, densely_connected, outputs, preactivation, randomize, residual

from tfprune.graph import analyse
from tfprune.parts.gammas import describe_missing, switched_channels
from tfprune.training.masks import apply_masks

L = keras.layers


def found(model, **options):
    return switched_channels(analyse(model), **options)


def table(model, **options):
    return {
        each.structure.name: (each.structure.size, len(each.structure.slices), each.selects_inputs)
        for each in found(model, **options)
    }


def small(*layers):
    return keras.Sequential([keras.Input((8, 8, 2)), *layers, L.GlobalAveragePooling2D(), L.Dense(3, name="classes")])


def test_a_convolution_without_normalization_is_not_switched():
    assert table(chain()) == {"first": (4, 1, False)}


def test_layers_tied_by_an_addition_are_one_structure_with_a_gamma_each():
    assert table(residual()) == {"stem": (5, 2, False)}


def test_preactivation_selects_the_inputs_of_branches_and_leaves_the_trunk_alone():
    assert table(preactivation()) == {
        "first0": (4, 1, False),
        "first1": (4, 1, False),
        "in0_bn": (6, 1, True),
        "in1_bn": (6, 1, True),
        "last_bn": (6, 1, True),
    }


def test_preactivation_carriers_are_gamma_beta_and_what_reads_the_branch():
    selection = {each.structure.name: each for each in found(preactivation())}["in1_bn"]
    paths = {"/".join(one.variable.path.split("/")[-2:]) for one in selection.carriers.slices}
    assert paths == {"in1_bn/gamma", "in1_bn/beta", "first1/kernel"}


def test_dense_block_selects_from_concatenations_what_others_read_too():
    assert table(densely_connected()) == {
        "grow1": (3, 1, False),  # only the last layer reads it
        "in0_bn": (4, 1, True),
        "in1_bn": (7, 1, True),
        "last_bn": (7, 1, True),
    }


def test_depthwise_convolutions_give_channels_a_second_gamma():
    model = small(
        L.Conv2D(4, 1, name="expand"), L.BatchNormalization(), L.DepthwiseConv2D(3), L.BatchNormalization(), L.ReLU()
    )
    assert table(model) == {"expand": (4, 2, False)}


def test_a_gate_ties_but_does_not_open_another_way():
    inputs = keras.Input((8, 8, 2))
    x = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="conv")(inputs))
    gate = L.Dense(4, "sigmoid", name="excite")(L.Dense(2, "relu", name="squeeze")(L.GlobalAveragePooling2D()(x)))
    x = L.GlobalAveragePooling2D()(L.Multiply()([x, L.Reshape((1, 1, 4))(gate)]))
    assert table(keras.Model(inputs, L.Dense(3)(x))) == {"conv": (4, 1, False)}


def test_a_way_without_gamma_around_the_normalization_leaves_nothing_to_switch():
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = L.Add()([x, L.BatchNormalization()(x)])
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    assert table(model) == {}
    assert "some layers that make them have none" in describe_missing(model, analyse(model))


def test_one_convolution_without_normalization_in_a_sum_is_enough_to_leave_it_alone():
    inputs = keras.Input((8, 8, 2))
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(inputs))
    x = L.Add()([x, L.Conv2D(4, 3, padding="same")(inputs)])
    assert table(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))) == {}


def test_a_branch_that_makes_the_channels_of_its_input_anew():
    inputs = keras.Input((8, 8, 2))
    trunk = L.Conv2D(4, 1, name="trunk")(inputs)
    x = L.Add()([trunk, L.Conv2D(4, 1)(L.BatchNormalization(name="bn")(trunk))])
    assert table(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))) == {"bn": (4, 1, True)}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([L.Conv2D(4, 3)], "has no BatchNormalization"),
        ([L.Conv2D(4, 3), L.BatchNormalization(scale=False)], "scale=False"),
        ([L.Conv2D(4, 3), L.BatchNormalization(trainable=False)], "not trainable"),
    ],
    ids=["none", "no-gamma", "frozen"],
)
def test_models_without_gammas_are_told_why(layers, message):
    model = small(*layers)
    assert table(model) == {}
    assert message in describe_missing(model, analyse(model))


def test_layers_that_are_left_alone():
    model = chain()
    assert table(model, leave=lambda layer: layer.name == "first_bn") == {}


def test_a_shared_normalization_never_selects():
    inputs, shared = keras.Input((8, 8, 2)), L.BatchNormalization(name="shared")
    x = L.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = L.Concatenate()([L.Conv2D(3, 1)(shared(x)), L.Conv2D(3, 1)(shared(L.ReLU()(x)))])
    assert table(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))) == {"conv": (4, 1, False)}


@pytest.mark.parametrize("make", [residual, preactivation, densely_connected])
def test_masking_gammas_and_betas_is_masking_all_that_carries(make):
    model = randomize(make())
    every = found(model)
    gone = [np.arange(each.structure.size) % 2 == 1 for each in every]
    for each, channels in zip(every, gone, strict=True):
        apply_masks(model, each.structure.masks(channels))
        for layer in model.layers:
            if layer.name in {one.variable.path.split("/")[-2] for one in each.structure.slices}:
                layer.beta.assign(np.where(layer.gamma.numpy() == 0, 0, layer.beta.numpy()))
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype("float32")
    before = outputs(model, x)
    assert not any(each.zero().any() for each in every)
    for each, channels in zip(every, gone, strict=True):
        apply_masks(model, each.carriers.masks(channels))
        assert np.array_equal(each.zero(), channels)
    np.testing.assert_allclose(outputs(model, x), before, rtol=0, atol=1e-6)


def test_protected_are_the_best_overall_and_of_every_part():
    (each,) = found(residual())
    assert each.protected(np.array([3.0, 1.0, 2.0, 3.0, 0.0]), 2).tolist() == [True, False, False, True, False]


def test_protected_where_layers_hold_parts():
    inputs = keras.Input((8, 8, 2))
    parts = [L.Conv2D(2, 3, padding="same", name=name)(inputs) for name in ("left", "right")]
    x = L.BatchNormalization()(L.Concatenate()(parts))
    x = L.Add()([x, L.BatchNormalization()(L.Conv2D(4, 3, padding="same", name="both")(inputs))])
    (each,) = found(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    assert each.protected(np.array([3.0, 4.0, 1.0, 2.0]), 1).tolist() == [False, True, False, True]
