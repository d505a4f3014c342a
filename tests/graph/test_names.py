"""Reading a model leaves no trace in the names that Keras gives to the user's next layers."""

import keras
import numpy as np
import pytest
from networks import dense, randomize, residual

import tfprune
from tfprune.graph import multiply_accumulates, walk

L = keras.layers


def with_wrapper():
    return keras.Sequential(
        [keras.Input((5, 3)), L.TimeDistributed(L.Dense(2, name="inner"), name="outer")], name="mine"
    )


class OwnCall(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.hidden, self.end = L.Dense(4, name="hidden"), L.Dense(2, name="end")

    def call(self, x):
        return self.end(self.hidden(x))


def own_call():
    model = OwnCall()
    model(np.zeros((1, 3)))
    return model


def constants():
    inputs = keras.Input((3,), name="numbers")
    x = L.Dense(4, "sigmoid", name="hidden")(inputs)
    return keras.Model(inputs, L.Dense(2, name="end")(x), name="constants")


def next_names():
    """The names that Keras gives to a new input and a new model."""
    inputs = keras.Input((2,))
    return inputs.name, keras.Model(inputs, inputs).name, L.Dense(1).name


def numbers(names):
    return [int(name.rpartition("_")[2]) if name[-1].isdigit() else 0 for name in names]


@pytest.mark.parametrize("make", [dense, residual, with_wrapper, own_call, constants])
def test_analysis_uses_up_no_automatic_name(make):
    model = randomize(make())
    before = numbers(next_names())
    tfprune.channel_groups(model)
    for node in walk(model):
        multiply_accumulates(node)
    after = numbers(next_names())
    # A call that is run on symbolic tensors makes new ones, which Keras counts.
    counted = slice(1, None) if make is own_call else slice(None)
    assert after[counted] == [number + 1 for number in before[counted]]


def test_measuring_constants_uses_up_no_name_of_a_model():
    model = randomize(constants())
    (group,) = tfprune.channel_groups(model).free
    before = numbers(next_names())
    tfprune.shrink(model, keep={group: [0, 2]})
    assert numbers(next_names())[1:] == [number + 1 for number in before[1:]]
