"""Branches that can vanish: which end in weights that make them zero, and that shrink then leaves them out exactly."""

import keras
import numpy as np
import pytest
from networks import images, outputs, randomize, relative_difference, residual, same, weights_of

import tfprune
from tfprune.graph.wiring import Wiring
from tfprune.parts.branches import vanishing_branches

L = keras.layers
SHAPE = (8, 8, 4)


def conv(**options):
    return L.Conv2D(4, 3, padding="same", **options)


def with_branch(*layers):
    """A convolution, then a residual block whose branch is made of these layers."""
    inputs = keras.Input(SHAPE, name="image")
    y = x = L.Conv2D(4, 1, name="stem")(inputs)
    for layer in layers:
        y = layer(y)
    x = L.GlobalAveragePooling2D()(L.Add(name="add")([x, y]))
    return randomize(keras.Model(inputs, L.Dense(3, name="classes")(x)))


def gated(tensor):
    """Squeeze and excitation."""
    gate = L.GlobalAveragePooling2D(keepdims=True)(tensor)
    return L.Multiply()([tensor, L.Dense(4, "sigmoid")(L.Dense(2, "relu")(gate))])


def branches(model, leave_alone=lambda layer: False):
    return list(vanishing_branches(Wiring.of(model), leave_alone))


VANISHING = {
    "bias": lambda: [conv()],
    "two layers": lambda: [conv(activation="relu"), L.Dropout(0.1), conv(use_bias=False)],
    "normalization": lambda: [conv(), L.BatchNormalization()],
    "activation behind it": lambda: [conv(), L.BatchNormalization(), L.Activation("silu")],
    "no shift": lambda: [conv(), L.BatchNormalization(center=False), L.ReLU(6.0)],
    "depthwise, pointwise": lambda: [L.DepthwiseConv2D(3, padding="same"), L.BatchNormalization(), L.Dense(4)],
    "frozen before the end": lambda: [conv(trainable=False), L.BatchNormalization()],
    "nested": lambda: [keras.Sequential([keras.Input(SHAPE), conv(), L.BatchNormalization()])],
    "gated": lambda: [conv(), L.BatchNormalization(), gated],
    "pooled": lambda: [conv(), L.AveragePooling2D(3, 1, padding="same")],
}
STAYING = {
    "no gamma": lambda: [conv(), L.BatchNormalization(scale=False)],
    "frozen end": lambda: [conv(), L.BatchNormalization(trainable=False)],
    "frozen bias": lambda: [conv(trainable=False)],
    "not zero at zero": lambda: [conv(activation="sigmoid")],
    "unknown layer": lambda: [conv(), L.Softmax()],
    "called twice": lambda: [conv()] * 2,
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", VANISHING)
def test_a_branch_without_its_weights_adds_nothing_and_shrink_leaves_it_out(name):
    model = with_branch(*VANISHING[name]())
    ((*variables,),) = branches(model)
    own = {id(v) for layer in model.layers if layer.name not in ("stem", "classes") for v in layer.trainable_weights}
    assert {id(variable) for variable in variables} == own
    for variable in variables:
        variable.assign(np.zeros(variable.shape))
    before, (x, _) = weights_of(model), images(4, shape=SHAPE)
    small = tfprune.shrink(model)
    assert [type(layer).__name__ for layer in small.layers] == [
        "InputLayer",
        "Conv2D",
        "GlobalAveragePooling2D",
        "Dense",
    ]
    assert relative_difference(outputs(model, x), outputs(small, x)) < 1e-5
    assert same(before, weights_of(model))


@pytest.mark.parametrize("name", STAYING)
def test_a_branch_that_would_still_add_something_is_none(name):
    assert branches(with_branch(*STAYING[name]())) == []


def test_a_branch_with_a_layer_that_is_left_alone_is_none():
    model = with_branch(conv(name="first"), conv())
    assert branches(model, lambda layer: layer.name == "first") == []


def test_a_layer_that_is_called_elsewhere_too_takes_no_part():
    shared = L.BatchNormalization()
    inputs = x = keras.Input(SHAPE)
    for name in ("a", "b"):
        x = L.Add()([x, conv(name=name)(L.ReLU()(shared(x)))])
    model = randomize(keras.Model(inputs, x))
    found = [[variable.path for variable in branch] for branch in branches(model)]
    assert found == [["a/kernel", "a/bias"], ["b/kernel", "b/bias"]]


def test_a_constant_that_a_zero_kernel_leaves_keeps_its_branch():
    model = randomize(residual())
    model.get_layer("branch").kernel.assign(np.zeros((3, 3, 5, 5)))
    with pytest.warns(UserWarning, match="No channel of the model is dead"):
        small = tfprune.shrink(model)
    assert any(isinstance(layer, L.Add) for layer in small.layers)
    assert relative_difference(outputs(model, images(4)[0]), outputs(small, images(4)[0])) < 1e-5


def test_of_two_branches_that_are_zero_one_stays_for_the_other():
    inputs = keras.Input((4,))
    x = L.Add(name="add")([L.Dense(4, name="a")(inputs), L.Dense(4, name="b")(inputs)])
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    for name in ("a", "b"):
        for weight in model.get_layer(name).weights:
            weight.assign(np.zeros(weight.shape))
    small = tfprune.shrink(model)
    assert "add" in [layer.name for layer in small.layers]
    assert relative_difference(outputs(model, np.ones((2, 4))), outputs(small, np.ones((2, 4)))) < 1e-5
