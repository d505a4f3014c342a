import keras
import pytest
from helpers_graph import frozen_reasons, shrunken_equals_masked
from keras import ops

from tfprune.graph import channel_groups

L = keras.layers


def branches(join, widths=(8, 8), shape=(6, 6, 3), activation="relu"):
    """Two convolutions of one input, joined, and a 1x1 convolution that reads the result."""
    inputs = keras.Input(shape)
    names = ("left", "right")
    pair = [L.Conv2D(n, 1, activation=activation, name=name)(inputs) for n, name in zip(widths, names, strict=True)]
    x = join(*pair)
    x = L.Conv2D(4, 1, name="reader")(x) if len(x.shape) == 4 else x
    return keras.Model(inputs, L.Dense(3, name="classes")(L.Flatten()(x)))


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("layer", [L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Multiply])
def test_merging_layers_tie(layer, tmp_path):
    model = branches(lambda a, b: layer()([a, b]))
    assert [group.size for group in channel_groups(model).free] == [8, 4]
    small = shrunken_equals_masked(model, tmp_path=tmp_path)
    assert small.get_layer("left").filters == small.get_layer("right").filters < 8


@pytest.mark.parametrize("axis", [-1, 3])
def test_concatenation_lines_up(axis):
    model = branches(lambda a, b: L.Concatenate(axis=axis)([a, b]), widths=(5, 7))
    small = shrunken_equals_masked(model, free={"left", "right", "reader"})
    assert small.get_layer("left").filters < 5
    assert small.get_layer("right").filters < 7


@pytest.mark.parametrize("axis", [1, 2])
def test_concatenation_over_positions_ties(axis):
    model = branches(lambda a, b: L.Concatenate(axis=axis)([a, b]))
    small = shrunken_equals_masked(model, free={"left", "right", "reader"})
    assert small.get_layer("left").filters == small.get_layer("right").filters < 8


def test_dense_of_concatenated_vectors():
    model = branches(lambda a, b: L.Concatenate()([L.Flatten()(a), L.GlobalMaxPooling2D()(b)]))
    assert shrunken_equals_masked(model, free={"left", "right"}).get_layer("left").filters < 8


def test_channel_split_with_operations_is_exact():
    def join(a, b):
        first, second = ops.split(a, 2, axis=-1)
        return ops.concatenate([first, second * ops.sigmoid(b[..., :4])], axis=-1)

    model = branches(lambda a, b: join(a, b), widths=(8, 4))
    small = shrunken_equals_masked(model)
    assert small.get_layer("left").filters < 8


@pytest.mark.parametrize("make", [lambda x: x, L.Reshape((1, 1, 8))], ids=["vector", "map"])
def test_a_gate_of_lower_rank_ties_to_the_map(make):
    model = branches(lambda a, b: L.Multiply()([a, make(L.GlobalAveragePooling2D()(b))]))
    small = shrunken_equals_masked(model, free={"left", "right", "reader"})
    assert small.get_layer("left").filters == small.get_layer("right").filters < 8


def test_a_spatial_gate_stays():
    model = branches(lambda a, b: L.Multiply()([a, b]), widths=(8, 1))
    assert "multiplies all channels by it" in frozen_reasons(model)["right"]
    assert shrunken_equals_masked(model, free={"left", "reader"}).get_layer("left").filters < 8


def test_one_number_added_to_all_channels_freezes():
    reasons = frozen_reasons(branches(lambda a, b: L.Add()([a, b]), widths=(8, 1)))
    assert "one number with all channels" in reasons["left"]


@pytest.mark.parametrize("normalize", [False, True])
def test_dot_over_channels(normalize):
    def join(a, b):
        a, b = (L.Reshape((36, 8))(x) for x in (a, b))
        return L.Dot(axes=2, normalize=normalize)([a, b])

    model = branches(join, activation=None)
    small = shrunken_equals_masked(model, free={"left", "right"})
    assert small.get_layer("left").filters == small.get_layer("right").filters < 8


def test_dot_over_positions_freezes_what_pairs():
    def join(a, b):
        return L.Dot(axes=1)([L.Reshape((36, 8))(a), L.Reshape((36, 8))(b)])

    assert "pairs every channel" in frozen_reasons(branches(join))["left"]


def test_dot_with_constants_keeps_the_channels():
    def join(a, b):
        return L.Dot(axes=2)([L.Reshape((36, 8))(ops.sigmoid(a)), L.Reshape((36, 8))(ops.sigmoid(b))])

    model = branches(join)
    kept = model.get_layer("left")
    for name in ("left", "right"):
        for weight in model.get_layer(name).weights:
            value = weight.numpy()
            value[..., :3] = 0.0
            weight.assign(value)
    from tfprune.shrinking.removal import shrink

    with pytest.warns(UserWarning, match="No channel"):
        assert shrink(model).get_layer("left").filters == kept.filters
