"""shrink(select_inputs=True): branches lose channels that others still read."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from networks import (
    compiled,
    densely_connected,
    images,
    outputs,
    preactivation,
    randomize,
    relative_difference,
    same,
    weights_of,
)

import tfprune
from tfprune import channel_groups, shrink, widen
from tfprune.callbacks import NetworkSlimming
from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks

L = keras.layers


def end(model, **positions):
    """Zero gammas and betas at positions; return the model."""
    for name, where in positions.items():
        for variable in (model.get_layer(name).gamma, model.get_layer(name).beta):
            value = variable.numpy()
            value[list(where)] = 0.0
            variable.assign(value)
    return model


def takes(model):
    return [operation for operation in model.operations if type(operation).__name__ == "Take"]


def assert_same_outputs(model, small):
    x, _ = images(8, seed=5)
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5


def test_each_branch_loses_its_own_inputs_and_the_trunk_stays():
    model = end(randomize(preactivation()), in0_bn=[0, 4], in1_bn=[0, 1, 5], last_bn=[0])
    before = weights_of(model)
    small = shrink(model, select_inputs=True)
    assert small.get_layer("stem").filters == 5  # nothing reads channel 0
    assert [small.get_layer(name).kernel.shape[2] for name in ("first0", "first1")] == [4, 3]
    assert [small.get_layer(name).gamma.shape[0] for name in ("in0_bn", "in1_bn", "last_bn")] == [4, 3, 5]
    assert len(takes(small)) == 2
    assert same(before, weights_of(model))
    assert_same_outputs(model, small)


@pytest.mark.slow
def test_loads_where_tfprune_is_not_installed(tmp_path):
    model = end(randomize(preactivation()), in0_bn=[0, 4], in1_bn=[0, 1, 5], last_bn=[0])
    small = shrink(model, select_inputs=True)
    x, _ = images(4)
    np.save(tmp_path / "x.npy", x)
    small.save(tmp_path / "small.keras")
    code = (
        "import sys; sys.modules['tfprune'] = None; import keras, numpy as np; "
        "np.save('y.npy', keras.models.load_model('small.keras').predict(np.load('x.npy'), verbose=0))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert relative_difference(outputs(model, x), [np.load(tmp_path / "y.npy")]) < 1e-5


def test_without_it_the_branch_keeps_its_width():
    model = end(randomize(preactivation()), in0_bn=[0, 4], last_bn=[1])
    with pytest.warns(UserWarning, match="No channel of the model is dead"):
        assert shrink(model).get_layer("first0").kernel.shape[2] == 6
    small = shrink(model, select_inputs=True)
    assert small.get_layer("first0").kernel.shape[2] == 4
    assert_same_outputs(model, small)


def test_nothing_to_select_gives_the_same_model_without_a_warning():
    model = randomize(preactivation())
    assert takes(shrink(model, select_inputs=True)) == []


def test_dense_block():
    model = end(randomize(densely_connected()), in0_bn=[1], in1_bn=[0, 2, 5], last_bn=[0, 4, 8])
    small = shrink(model, select_inputs=True)
    # Of the first layer's channels 5 - 4 = 1 goes for one reader and 0 for the other; the last one's second is gone.
    assert [small.get_layer(name).kernel.shape[2] for name in ("grow0", "grow1")] == [3, 4]
    assert small.get_layer("classes").kernel.shape[0] == 7
    assert small.get_layer("grow1").filters == 2
    assert_same_outputs(model, small)


def test_a_branch_keeps_one_input():
    model = end(randomize(preactivation()), in0_bn=range(6))
    small = shrink(model, select_inputs=True)
    assert small.get_layer("first0").kernel.shape[2] == 1
    assert_same_outputs(model, small)


def test_constants_behind_the_cut_are_folded():
    inputs = keras.Input((8, 8, 2))
    trunk = L.Conv2D(4, 1, name="trunk")(inputs)
    y = L.Activation("sigmoid")(L.BatchNormalization(name="bn")(trunk))
    x = L.Add()([trunk, L.Conv2D(4, 1, name="branch")(y)])
    model = end(randomize(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))), bn=[1, 2])
    small = shrink(model, select_inputs=True)
    assert small.get_layer("branch").kernel.shape[2] == 2
    assert_same_outputs(model, small)


def test_channels_that_a_grouped_convolution_ties_to_others_stay():
    inputs = keras.Input((8, 8, 2))
    trunk = L.Conv2D(4, 1, name="trunk")(inputs)
    y = L.ReLU()(L.BatchNormalization(name="bn")(trunk))
    x = L.Add()([trunk, L.Conv2D(4, 1, groups=2, name="branch")(y)])
    model = randomize(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    assert takes(shrink(end(model, bn=[1]), select_inputs=True)) == []
    small = shrink(end(model, bn=[3]), select_inputs=True)  # now both groups lose their second
    assert small.get_layer("branch").kernel.shape[2] == 1
    assert_same_outputs(model, small)


def test_channels_first():
    inputs = keras.Input((4, 6, 6))
    trunk = L.Conv2D(4, 1, data_format="channels_first")(inputs)
    bn = L.BatchNormalization(axis=1, name="bn")
    y = L.Conv2D(4, 1, data_format="channels_first", name="branch")(bn(trunk))
    x = L.Conv2D(2, 1, data_format="channels_first")(L.Add()([trunk, y]))
    model = end(randomize(keras.Model(inputs, x)), bn=[2])
    small = shrink(model, select_inputs=True)
    assert small.get_layer("branch").kernel.shape[2] == 3
    assert takes(small)[0].axis == 1


def test_a_normalization_in_a_sequential_branch_stays_as_it_is():
    inputs = keras.Input((8, 8, 2))
    trunk = L.Conv2D(4, 1)(inputs)
    branch = keras.Sequential([keras.Input((8, 8, 4)), L.BatchNormalization(name="bn"), L.Conv2D(4, 1)], name="branch")
    x = L.Add()([trunk, branch(trunk)])
    model = randomize(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    end(model.get_layer("branch"), bn=[1])
    small = shrink(model, select_inputs=True)
    assert small.count_params() == model.count_params()
    assert_same_outputs(model, small)


def test_a_selected_model_is_pruned_selected_and_widened_again():
    model = end(randomize(preactivation()), in0_bn=[0, 4], in1_bn=[1, 5])
    small = shrink(model, select_inputs=True)
    groups = {group.name: group for group in channel_groups(small)}
    assert not groups["stem"].frozen
    assert widen(small, 2).get_layer("first0").kernel.shape[2] == 8
    end(small, in0_bn=[0])
    apply_masks(small, channel_masks([(groups["stem"], np.arange(6) != 3)], ("producer", "affine")))
    smaller = shrink(small, select_inputs=True)
    assert smaller.get_layer("stem").filters == 5
    assert smaller.get_layer("first0").kernel.shape[2] == 2
    assert_same_outputs(small, smaller)


@pytest.mark.filterwarnings("ignore:NetworkSlimming has left")
@pytest.mark.parametrize("quantize", [None, pytest.param("int8", marks=pytest.mark.slow)])
def test_it_trains_and_exports(tmp_path, quantize):
    model = compiled(randomize(preactivation(blocks=1)), "sgd", run_eagerly=True)
    model.fit(*images(16), batch_size=8, epochs=2, callbacks=[NetworkSlimming(1e-3, 0.4)], verbose=0)
    small = shrink(model, select_inputs=True)
    assert takes(small)
    assert_same_outputs(model, small)
    assert np.isfinite(small.fit(*images(16), batch_size=8, verbose=0).history["loss"]).all()
    options = {"quantize": quantize, "calibration": images(8)[0]} if quantize else {}
    tfprune.export(small, tmp_path / "model.tflite", **options)


@pytest.mark.parametrize("index", [np.array([0, 2]), [2, 0, 2], [-1, 0]], ids=["array", "twice", "negative"])
def test_take_is_followed(index):
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(4, 1, name="conv")(inputs)
    model = keras.Model(inputs, L.Conv2D(2, 1)(keras.ops.take(x, index, axis=-1)))
    randomize(model)
    (group,) = channel_groups(model).free
    small = shrink(model, keep={group: [0, 2, 3]})
    assert small.get_layer("conv").filters == 3
    masked = keras.models.clone_model(model)
    masked.set_weights(model.get_weights())
    apply_masks(masked, channel_masks([(group, np.arange(4) != 1)], ("producer", "affine")))
    assert_same_outputs(masked, small)


def test_take_of_positions_is_not_followed():
    inputs = keras.Input((4, 4, 2))
    x = keras.ops.take(L.Conv2D(4, 1, name="conv")(inputs), [0, 1], axis=1)
    model = keras.Model(inputs, L.Conv2D(2, 1)(x))
    assert "takes elements by an index" in channel_groups(model).groups[0].frozen[0]
