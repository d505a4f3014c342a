"""Normalization: exact where zeros make no difference, and frozen where they do."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons, outputs_of, random_inputs, randomize

import tfprune
from tfprune.graph import analyse, channel_groups
from tfprune.parts.channels import channel_masks
from tfprune.training.masks import apply_masks

layers = keras.layers


def _model(*between: keras.layers.Layer, channels: int = 8) -> keras.Model:
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(channels, 3, name="conv")(inputs)
    for layer in between:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    "settings", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}], ids=str
)
@pytest.mark.parametrize("groups", [4, 8, -1])
def test_groups_of_channels_go_together(groups, settings):
    layer = layers.GroupNormalization(groups, name="norm", **settings)
    small, sizes = assert_shrinks_exactly(_model(layer, layers.ReLU()))
    count = groups if groups > 0 else 8
    assert sizes == {"conv": count // 2}
    assert small.get_layer("norm").groups == count // 2
    assert small.get_layer("conv").filters == 4


def test_groups_along_the_first_axis():
    inputs = keras.Input((5, 5, 2))
    x = layers.Permute((3, 1, 2))(layers.Conv2D(8, 3, name="conv")(inputs))
    x = layers.GroupNormalization(4, axis=1, name="norm")(x)
    _, sizes = assert_shrinks_exactly(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x))))
    assert sizes == {"conv": 2}


def test_two_group_normalizations_tie_what_both_do():
    norms = layers.GroupNormalization(8, name="fine"), layers.GroupNormalization(4, name="coarse")
    small, sizes = assert_shrinks_exactly(_model(*norms, channels=16))
    assert sizes == {"conv": 2}
    assert [small.get_layer(name).groups for name in ("fine", "coarse")] == [4, 2]


def test_a_single_group_mixes_all_channels():
    model = _model(layers.GroupNormalization(1, name="norm"))
    assert frozen_reasons(model, "conv") == "'norm' normalizes over its channels"


@pytest.mark.parametrize("axis", [-1, 3])
def test_normalization_by_squares_makes_up_for_fewer_channels(axis):
    small, sizes = assert_shrinks_exactly(_model(layers.RMSNormalization(axis, epsilon=0.1, name="norm")))
    assert sizes == {"conv": 4}
    assert small.get_layer("norm").epsilon == pytest.approx(0.2)


def test_two_normalizations_by_squares_in_a_row():
    _, sizes = assert_shrinks_exactly(_model(layers.RMSNormalization(), layers.ReLU(), layers.RMSNormalization()))
    assert sizes == {"conv": 4}


@pytest.mark.parametrize("axis", [-1, (1, 2, 3), (1,)])
def test_unit_normalization(axis):
    _, sizes = assert_shrinks_exactly(_model(layers.UnitNormalization(axis)))
    assert sizes == {"conv": 4}


@pytest.mark.parametrize("layer", [layers.RMSNormalization, layers.UnitNormalization])
def test_a_live_channel_that_is_squared_stays_though_it_is_silenced_later(layer):
    model = _model(layer(), layers.BatchNormalization(name="after"))
    randomize(model)
    silent = np.arange(8) < 4
    for variable in (model.get_layer("after").gamma, model.get_layer("after").beta):
        variable.assign(np.where(silent, 0.0, variable))
    with pytest.warns(UserWarning, match="No channel"):
        assert tfprune.shrink(model).get_layer("conv").filters == 8


@pytest.mark.parametrize("layer", [layers.RMSNormalization, layers.UnitNormalization])
def test_constants_that_are_squared_cannot_go(layer):
    model = _model(layers.Activation("sigmoid"), layer(name="norm"))
    assert "a constant" in frozen_reasons(model, "conv")


def test_normalization_by_squares_over_several_axes_is_frozen():
    model = _model(layers.RMSNormalization((1, 2, 3), name="norm"))
    assert frozen_reasons(model, "conv") == "'norm' normalizes over several axes"


@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}], ids=str)
def test_batch_normalization(settings):
    _, sizes = assert_shrinks_exactly(_model(layers.BatchNormalization(**settings), layers.ReLU()))
    assert sizes == {"conv": 4}


@pytest.mark.skipif("renorm" not in layers.BatchNormalization().get_config(), reason="this Keras has none")
def test_batch_renormalization():
    small, _ = assert_shrinks_exactly(_model(layers.BatchNormalization(renorm=True, name="norm"), layers.ReLU()))
    assert small.get_layer("norm").renorm_mean.shape == (small.get_layer("conv").filters,)


def test_synchronized_batch_normalization():
    small, _ = assert_shrinks_exactly(_model(layers.BatchNormalization(synchronized=True, name="norm")))
    assert small.get_layer("norm").get_config()["synchronized"] is True


def test_layer_normalization_is_frozen():
    assert (
        frozen_reasons(_model(layers.LayerNormalization(name="norm")), "conv") == "'norm' normalizes over its channels"
    )
    several = _model(layers.LayerNormalization((1, 2, 3), name="norm"))
    assert frozen_reasons(several, "conv") == "'norm' normalizes over several axes"


@pytest.mark.filterwarnings("ignore:The smaller model is not exactly:UserWarning")
@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`:UserWarning")
@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization,
        lambda: layers.LayerNormalization(scale=False, center=False),
        lambda: layers.LayerNormalization(rms_scaling=True),
        layers.RMSNormalization,
        lambda: layers.GroupNormalization(1),
    ],
)
def test_approximate_removal_builds_and_runs(layer):
    model = _model(layer())
    randomize(model)
    (group,) = analyse(model, approximate=True).groups.free
    apply_masks(model, channel_masks([(group, np.arange(8) < 6)], ("producer", "affine")))
    small = tfprune.shrink(model, approximate=True)
    assert small.get_layer("conv").filters == 6
    assert np.isfinite(outputs_of(small, random_inputs(small))[0]).all()


@pytest.mark.parametrize("shared_axes", [None, (1, 2), (1, 2, 3), (3,)])
def test_prelu(shared_axes):
    small, sizes = assert_shrinks_exactly(_model(layers.PReLU(shared_axes=shared_axes, name="prelu")))
    assert sizes == {"conv": 4}
    shape = [3, 3, 4]
    for axis in shared_axes or ():
        shape[axis - 1] = 1
    assert small.get_layer("prelu").alpha.shape == tuple(shape)


def test_the_free_groups_of_the_smaller_model_can_be_pruned_again():
    small, _ = assert_shrinks_exactly(_model(layers.GroupNormalization(8), layers.RMSNormalization()))
    assert [group.size for group in channel_groups(small).free] == [4]
    _, sizes = assert_shrinks_exactly(small)
    assert sizes == {"conv": 2}
