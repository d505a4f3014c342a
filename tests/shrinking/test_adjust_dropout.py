"""Dropout rates of a pruned model, computed by hand."""

import keras
import numpy as np
import pytest

from tfprune import Widths, adjust_dropout, decompose, prune_channels, prune_weights

L = keras.layers


def mlp(seed_dropout=0.5):
    return keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, activation="relu", name="first"),
            L.Dropout(seed_dropout, name="drop"),
            L.Dense(10, activation="relu", name="second"),
            L.Dropout(0.2, name="late"),
            L.Dense(3, name="classes"),
        ],
        name="mlp",
    )


def test_rates_follow_the_connections_that_read_what_is_dropped():
    model = mlp()
    model.compile(keras.optimizers.SGD(0.25), "mse")
    small = prune_channels(model, Widths({"first": 4, "second": 5}))
    adjusted = adjust_dropout(model, small)
    # 4 x 5 of 8 x 10 connections, and 5 x 3 of 10 x 3.
    assert adjusted.get_layer("drop").rate == pytest.approx(0.5 * np.sqrt(20 / 80))
    assert adjusted.get_layer("late").rate == pytest.approx(0.2 * np.sqrt(15 / 30))
    assert (small.get_layer("drop").rate, model.get_layer("drop").rate) == (0.5, 0.5)
    assert type(adjusted) is keras.Sequential
    assert float(adjusted.optimizer.learning_rate) == 0.25
    for old, new in zip(small.get_weights(), adjusted.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    again = adjust_dropout(model, adjusted)  # rates come from the original, so nothing adds up
    assert again.get_layer("drop").rate == adjusted.get_layer("drop").rate


def test_single_weights_count_where_they_live():
    model = mlp()
    prune_weights(model, {model.get_layer("second"): 0.75})
    adjusted = adjust_dropout(model, model)
    assert adjusted.get_layer("drop").rate == pytest.approx(0.25)
    assert adjusted.get_layer("late").rate == pytest.approx(0.2)
    assert np.signbit(
        adjusted.get_layer("second").kernel.numpy()[adjusted.get_layer("second").kernel.numpy() == 0]
    ).all()


def test_kernels_are_followed_through_branches_and_models():
    inputs = keras.Input((8, 8, 4))
    x = L.SpatialDropout2D(0.4, name="drop")(inputs)
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), L.ReLU(), L.Conv2D(4, 3, padding="same", name="conv")], name="inner"
    )
    x = L.ReLU()(L.Add()([x, inner(x)]))
    block = keras.Sequential(
        [keras.Input((8, 8, 4)), L.GlobalAveragePooling2D(), L.Dropout(0.3, name="last")], name="end"
    )
    model = keras.Model(inputs, L.Dense(5, name="classes")(block(x)))
    small = keras.models.clone_model(model)
    kernel = small.get_layer("inner").get_layer("conv").kernel
    kernel.assign(np.where([True, False, False, False], kernel.numpy(), 0.0))
    adjusted = adjust_dropout(model, small)
    # Read by the convolution inside and, past the addition, by the classes: 36 of 144, and 20 of 20.
    assert adjusted.get_layer("drop").rate == pytest.approx(0.4 * np.sqrt((36 + 20) / (144 + 20)))
    assert adjusted.get_layer("end").get_layer("last").rate == pytest.approx(0.3)


def test_layers_of_low_rank_have_fewer_connections():
    model = mlp()
    small = decompose(model, ranks={model.get_layer("second"): 2})
    assert adjust_dropout(model, small).get_layer("drop").rate == pytest.approx(0.5 * np.sqrt(8 * 2 / 80))


def test_what_nothing_reads_keeps_its_rate():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2), L.Dropout(0.5, name="drop")])
    assert adjust_dropout(model, model).get_layer("drop").rate == 0.5


def test_models_without_a_dropout_in_common_are_refused():
    other = keras.Sequential([keras.Input((3,)), L.Dropout(0.5, name="elsewhere"), L.Dense(2)])
    with pytest.raises(ValueError, match=r"the dropout layers \['drop', 'late'\].*\['elsewhere'\]: none in common"):
        adjust_dropout(mlp(), other)
