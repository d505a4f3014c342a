"""Wrappers shrink the layer that they hold."""

import keras
import numpy as np
import pytest
from helpers import assert_shrinks_exactly, macs_of

import tfprune
from tfprune.graph import analyse, channel_groups
from tfprune.graph.counting import SizeCounter

layers = keras.layers


def _video(*wrapped: keras.layers.Layer, shape: tuple[int, ...] = (3, 6, 6, 2)) -> keras.Model:
    inputs = x = keras.Input(shape)
    for layer in wrapped:
        x = layers.TimeDistributed(layer, name=f"each_{layer.name}")(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def test_time_distributed_convolutions():
    model = _video(
        layers.Conv2D(8, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.DepthwiseConv2D(2, name="depthwise"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(6, "tanh", name="dense"),
    )
    small, sizes = assert_shrinks_exactly(model)
    assert sizes == {"each_conv": 4, "each_dense": 3}
    assert small.get_layer("each_conv").layer.filters == 4


@pytest.mark.parametrize("time", [3, None])
def test_time_distributed_flatten(time):
    model = _video(layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat"), shape=(time, 4, 4, 2))
    if time is not None:
        _, sizes = assert_shrinks_exactly(model)
        assert sizes == {"each_conv": 2}
    assert [group.name for group in channel_groups(model).free] == ["each_conv"]


def test_time_distributed_normalization_by_squares_is_rescaled():
    model = _video(layers.Dense(8, name="dense"), layers.RMSNormalization(name="norm"), shape=(3, 4))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"each_dense": 4}


def test_a_recurrent_layer_for_each_frame():
    model = _video(layers.Bidirectional(layers.GRU(6), name="rows"), shape=(3, 5, 4))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"each_rows": 3}


def test_a_constant_left_by_an_activation_is_folded_behind_the_wrapper():
    model = _video(layers.Dense(8, "sigmoid", name="dense"), shape=(3, 4))
    _, sizes = assert_shrinks_exactly(model)
    assert sizes == {"each_dense": 4}


def _of_frames(steps: int | None) -> keras.Model:
    frame = keras.Input((6, 6, 4))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="sigmoid", name="conv")(frame))
    inner = keras.Model(frame, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="last")(x)), name="inner")
    inputs = keras.Input((steps, 6, 6, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 1, name="before"), name="trunk")(inputs)
    x = layers.TimeDistributed(inner, name="frames")(x)
    return keras.Model(inputs, layers.Dense(2, name="classes")(layers.LSTM(4, name="lstm")(x)))


def test_a_model_inside_time_distributed():
    model = _of_frames(3)
    small, sizes = assert_shrinks_exactly(model)
    assert sizes == {"trunk": 2, "conv": 4, "last": 3, "lstm": 2}
    assert small.get_layer("frames").layer.get_layer("conv").filters == 4


def test_what_a_model_for_each_step_costs():
    def macs(trunk: int, conv: int, last: int, lstm: int) -> int:
        frame = 36 * 3 * trunk + 16 * 9 * trunk * conv + 4 * 9 * conv * last
        return 3 * (frame + 4 * lstm * (last + lstm)) + lstm * 2

    model = _of_frames(3)
    assert tfprune.profile(model).macs == macs(4, 8, 6, 4)
    analysis = analyse(model)
    ones = np.ones(analysis.trace.num_channels, int)
    assert SizeCounter(model, analysis)(ones, ["macs"]) == {"macs": macs(4, 8, 6, 4)}
    small = tfprune.prune_channels(model, 0.5)
    assert tfprune.profile(small).macs == macs(2, 4, 3, 2)


def test_a_model_for_an_unknown_number_of_steps():
    model = _of_frames(None)
    assert {group.name for group in channel_groups(model).free} == {"trunk", "conv", "last", "lstm"}
    assert tfprune.prune_channels(model, 0.5).get_layer("frames").layer.get_layer("conv").filters == 4


def test_layers_that_are_not_followed_are_listed():
    inputs = keras.Input((3, 6, 6, 2))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ConvLSTM2D(4, 3, name="memory")(inputs)))
    groups = channel_groups(model)
    assert len(groups) == 0
    assert dict(groups.unread) == groups.to_dict()["unread"] == {"memory": "no rule for ConvLSTM2D 'memory'"}
    assert "memory" in str(groups)
    assert "1 layer is not followed" in str(groups)


def test_an_excluded_wrapper_keeps_the_channels_of_its_layer():
    model = _video(layers.Dense(8, name="dense"), shape=(3, 4))
    groups = channel_groups(model, exclude=[model.get_layer("each_dense")])
    assert {group.name: group.frozen for group in groups}["each_dense"] == ("'each_dense' is excluded",)


@pytest.mark.parametrize("kind", ["dense", "conv", "transposed", "depthwise"])
def test_spectral_normalization(kind):
    inner = {
        "dense": layers.Dense(8, name="inner"),
        "conv": layers.Conv2D(8, 3, name="inner"),
        "transposed": layers.Conv2DTranspose(8, 3, name="inner"),
        "depthwise": layers.DepthwiseConv2D(3, depth_multiplier=2, name="inner"),
    }[kind]
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1, name="before")(inputs)
    x = layers.SpectralNormalization(inner, name="spectral")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    small, sizes = assert_shrinks_exactly(model)
    assert sizes == ({"before": 2} if kind == "depthwise" else {"before": 2, "spectral": 4})
    spectral = small.get_layer("spectral")
    assert spectral.vector_u.shape == (1, spectral.layer.kernel.shape[-1])


def test_spectral_normalization_goes_on_training():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.SpectralNormalization(layers.Dense(8), name="spectral")(inputs)))
    small, _ = assert_shrinks_exactly(model)
    small.compile("sgd", "mse")
    history = small.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_macs_are_those_of_the_layer_inside():
    model = _video(layers.Conv2D(8, 3, name="conv"), layers.GlobalAveragePooling2D(name="pool"))
    assert macs_of(model, "each_conv") == 3 * (4 * 4) * 9 * 2 * 8
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.SpectralNormalization(layers.Dense(3), name="spectral")(inputs))
    assert macs_of(model, "spectral") == 5 * 4 * 3
    assert tfprune.profile(model).macs == 5 * 4 * 3
