"""Repair without training: what is lost and can be computed from the rest comes back, and nothing else is harmed."""

import keras
import numpy as np
import pytest
from networks import chain, images, outputs, randomize, relative_difference

import tfprune
from tfprune import reconstruct

L = keras.layers


@pytest.fixture(scope="module")
def data():
    return images(96)[0]


def normalized(model, x):
    """With random weights and statistics that fit them."""
    randomize(model)
    if any(isinstance(layer, L.BatchNormalization) for layer in model.layers):
        tfprune.recalibrate(model, x)
    return model


def without(model, name, gone):
    (group,) = [group for group in tfprune.channel_groups(model).free if group.name == name]
    return tfprune.shrink(model, keep={group: np.setdiff1d(np.arange(group.size), gone)})


def copied(model, name, norm, pairs):
    """Make channels linear copies of others, before the activation: twice as large."""
    for source, target in pairs:
        for variable in model.get_layer(name).variables:
            value = variable.numpy()
            value[..., target] = value[..., source]
            variable.assign(value)
        for factor, variable in zip((2, 2, 1, 1), model.get_layer(norm).variables if norm else (), strict=False):
            value = variable.numpy()
            value[target] = factor * value[source]
            variable.assign(value)


def test_channels_that_others_carry_come_back_whole(data):
    model = normalized(chain(filters=(6, 6)), data)
    copied(model, "first", "first_bn", [(0, 3), (1, 4)])
    small = without(model, "first", [3, 4])
    expected, lost = outputs(model, data), outputs(small, data)
    report = reconstruct(small, model, data, ridge=1e-9)
    assert relative_difference(expected, lost) > 0.05
    assert relative_difference(expected, outputs(small, data)) < 1e-4
    (second,) = report.refitted
    assert (second.name, second.unknowns) == ("second", 36)
    assert second.error_before > 1e-3 > 1e-9 > second.error_after
    assert set(report.left) == {"first", "classes"}
