"""Masked channels that carry a number: frozen where it would be lost, measured where it can be folded."""

import keras
import pytest
from helpers import assert_shrinks_exactly, frozen_reasons

from tfprune import channel_groups

L = keras.layers
CANNOT_ABSORB = "a removed channel would leave a constant that 'end' cannot absorb"


def awake(inputs, width=4):
    """Channels that are 0.5 when they are masked."""
    return L.Dense(width, "sigmoid", name="awake")(inputs)


def shuffled(x):
    x = L.Permute((1, 2, 4, 3))(L.Reshape((4, 4, 2, x.shape[-1] // 2))(x))
    return L.Reshape((4, 4, -1))(x)


def scaled_by_places(x):
    return L.Multiply()([x, L.Dense(1, "sigmoid", name="places")(x)])


def beside_others(x):
    return L.Concatenate(axis=1)([x, L.Dense(x.shape[-1], name="other")(x)])


@pytest.mark.parametrize("step", [shuffled, scaled_by_places, beside_others])
def test_constants_that_come_to_vary_freeze(step):
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, L.Dense(2, name="end")(step(awake(inputs))))
    assert CANNOT_ABSORB in frozen_reasons(model, "awake")


@pytest.mark.parametrize("step", [shuffled, scaled_by_places, beside_others])
def test_zeros_stay_free_in_the_same_places(step):
    inputs = keras.Input((4, 4, 2))
    x = L.Dense(8, "tanh", name="asleep")(inputs)
    model = keras.Model(inputs, L.Dense(2, name="end")(L.Flatten()(step(x))))
    assert frozen_reasons(model, "asleep") == ""
    assert_shrinks_exactly(model)


def test_a_frozen_channel_keeps_its_own_reason_alone():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, L.Dense(2, name="end")(L.Add()([inputs, L.Dense(2, name="tied")(inputs)])))
    assert frozen_reasons(model, "tied") == "model input"
    assert [group.frozen for group in channel_groups(model)] == [("model input",), ("model output",)]


class BackToFront(L.Layer):
    """Its layers were made in another order than that in which it calls them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = L.Dense(4, name="last")
        self.first = L.Dense(4, "sigmoid", name="first")

    def call(self, x):
        return self.last(self.first(x))


def test_constants_are_measured_on_the_right_layers_of_a_copy():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(3, name="end")(BackToFront(name="block")(inputs)))
    assert_shrinks_exactly(model)
