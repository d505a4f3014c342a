import keras
import pytest
from helpers_graph import frozen_reasons, randomize, shrunken_equals_masked
from keras import ops

from tfprune.graph import channel_groups

L = keras.layers


def network(middle, shape=(6, 6, 3), width=8):
    """A convolution, what is tested, and classes."""
    inputs = keras.Input(shape)
    x = middle(L.ReLU()(L.Conv2D(width, 3, padding="same", name="conv")(inputs)))
    x = L.Flatten()(x) if None not in x.shape[1:] else L.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, L.Dense(3, name="classes")(x))


def layer_shuffle(x, groups=2):
    height, width, channels = x.shape[1:]
    x = L.Reshape((height, width, groups, channels // groups))(x)
    return L.Reshape((height, width, channels))(L.Permute((1, 2, 4, 3))(x))


def operation_shuffle(x, groups=2):
    height, width, channels = x.shape[1:]
    x = ops.transpose(ops.reshape(x, (-1, height, width, groups, channels // groups)), (0, 1, 2, 4, 3))
    return ops.reshape(x, (-1, height, width, channels))


def squeeze_excite(x):
    gate = L.Reshape((1, 1, x.shape[-1]))(L.GlobalAveragePooling2D()(x))
    gate = L.Conv2D(4, 1, activation="relu", name="squeeze")(gate)
    return L.Multiply()([x, L.Conv2D(x.shape[-1], 1, activation="sigmoid", name="excite")(gate)])


EXACT = [
    pytest.param(lambda x: L.Flatten()(x), id="flatten"),
    pytest.param(L.Reshape((36, 8)), id="reshape"),
    pytest.param(L.Reshape((-1, 8)), id="reshape_open"),
    pytest.param(L.Reshape((6, 48)), id="width_into_channels"),
    pytest.param(lambda x: L.Reshape((6, 6, 8))(L.Flatten()(x)), id="there_and_back"),
    pytest.param(lambda x: L.Reshape((6, 6, 8))(L.Dense(288, name="wide")(L.Flatten()(x))), id="dense_to_map"),
    pytest.param(L.Permute((3, 1, 2)), id="permute"),
    pytest.param(lambda x: L.RepeatVector(3)(L.GlobalMaxPooling2D()(x)), id="repeat_vector"),
    pytest.param(L.Cropping2D(((1, 0), (2, 1))), id="cropping"),
    pytest.param(L.ZeroPadding2D(2), id="zero_padding"),
    pytest.param(L.UpSampling2D(2, interpolation="bilinear"), id="up_sampling"),
    pytest.param(L.Resizing(4, 5), id="resizing"),
    pytest.param(L.CenterCrop(4, 3), id="center_crop"),
    pytest.param(layer_shuffle, id="shuffle"),
    pytest.param(operation_shuffle, id="shuffle_operations"),
    pytest.param(squeeze_excite, id="squeeze_excite"),
]


@pytest.mark.sampled(6)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("middle", EXACT)
def test_moving_elements_is_exact(middle, tmp_path):
    small = shrunken_equals_masked(network(middle), tmp_path=tmp_path)
    assert small.get_layer("conv").filters < 8


@pytest.mark.parametrize("shuffle", [layer_shuffle, operation_shuffle])
def test_a_shuffle_ties_the_same_places_of_all_blocks(shuffle):
    (group,) = channel_groups(network(shuffle)).free
    assert group.size == 4
    assert group.producers[0].channels.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("target", [(-1, 8), (-1, 4, 2)])
def test_unknown_spatial_sizes(target):
    def middle(x):
        x = L.Reshape(target)(x)
        return x if len(target) == 2 else L.Reshape((-1, 8))(x)

    assert shrunken_equals_masked(network(middle, shape=(None, None, 3))).get_layer("conv").filters < 8


def test_unknown_sizes_joined_with_channels_are_frozen():
    inputs = keras.Input((None, 6, 3))
    x = L.Permute((3, 1, 2))(L.Conv2D(8, 1, name="conv")(inputs))
    x = L.Dense(3)(L.Reshape((-1, 6))(x))
    assert "unknown size" in frozen_reasons(keras.Model(inputs, x))["conv"]


def test_a_reshape_shared_by_two_branches_keeps_them_equal():
    inputs = keras.Input((6, 6, 3))
    shared = L.Reshape((36, 8))
    branches = [shared(L.Conv2D(8, 1, name=name)(inputs)) for name in ("left", "right")]
    model = keras.Model(inputs, [L.Dense(2)(branch) for branch in branches])
    small = shrunken_equals_masked(model, free={"left", "right"})
    assert small.get_layer("left").filters == small.get_layer("right").filters < 8


def test_channels_first_flatten_and_shuffle():
    inputs = keras.Input((8, 5, 4))
    scaled = L.BatchNormalization(axis=1, name="bn")(L.Permute((3, 1, 2))(L.Dense(6, name="dense")(inputs)))
    model = keras.Model(inputs, L.Dense(3, name="end")(L.Flatten(data_format="channels_first")(scaled)))
    assert shrunken_equals_masked(model, free={"dense"}).get_layer("dense").units < 6


def test_channels_first_models_are_traced():
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            L.Conv2D(6, 3, data_format="channels_first", name="conv"),
            L.ZeroPadding2D(1, data_format="channels_first"),
            L.MaxPooling2D(2, data_format="channels_first"),
            L.Reshape((6, 16)),
            L.Permute((2, 1)),
            L.Dense(2, name="classes"),
        ]
    )
    randomize(model)
    (group,) = channel_groups(model).free
    assert group.name == "conv"
    assert group.size == 6
    assert [member.layer.name for member in group.with_role("consumer")] == ["classes"]
