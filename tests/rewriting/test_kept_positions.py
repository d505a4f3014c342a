"""Which positions of the larger kernels a smaller model holds: remembered, or found by the numbers."""

import keras
import numpy as np
import pytest
from networks import chain, densely_connected, randomize, residual

import tfprune
from tfprune.rewriting.kept_positions import kept_positions, named_kernels

L = keras.layers


def mixed():
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(L.Conv2D(6, 3, name="conv")(inputs))
    x = L.Flatten()(L.SeparableConv2D(6, 3, name="separable")(x))
    return keras.Model(inputs, L.Dense(3, name="classes")(x))


NETWORKS = {"chain": chain, "residual": residual, "dense": densely_connected, "mixed": mixed}


@pytest.mark.parametrize("name", NETWORKS)
def test_positions_are_where_the_weights_come_from(name):
    model = randomize(NETWORKS[name]())
    small = tfprune.prune_channels(model, 0.4)
    whole = {name: kernel.numpy() for name, _, kernel in named_kernels(model)}
    found = kept_positions(small, model)
    parts = {name: kernel.numpy() for name, _, kernel in named_kernels(small)}
    assert parts.keys() == found.axes.keys() == whole.keys()
    assert any(parts[name].size < whole[name].size for name in parts)
    for name, part in parts.items():
        np.testing.assert_array_equal(whole[name][np.ix_(*found.axes[name])], part)

    twin = keras.models.clone_model(small)  # as if it came from a file
    twin.set_weights(small.get_weights())
    by_numbers = kept_positions(twin, model)
    for name, axes in found.axes.items():
        assert [each.tolist() for each in axes] == [each.tolist() for each in by_numbers.axes[name]]


def test_of_several_removals_the_first_model_counts():
    model = randomize(chain(filters=(6, 8)))
    smaller = tfprune.prune_channels(model, 0.3)
    smallest = tfprune.prune_channels(smaller, 0.5)
    for name, _, kernel in named_kernels(smallest):
        whole = {name: kernel.numpy() for name, _, kernel in named_kernels(model)}[name]
        np.testing.assert_array_equal(whole[np.ix_(*kept_positions(smallest, model).axes[name])], kernel.numpy())
        between = {name: kernel.numpy() for name, _, kernel in named_kernels(smaller)}[name]
        np.testing.assert_array_equal(between[np.ix_(*kept_positions(smallest, smaller).axes[name])], kernel.numpy())


def test_trained_weights_are_known_as_long_as_the_model_lives():
    model = randomize(chain())
    small = tfprune.prune_channels(model, 0.5)
    twin = keras.models.clone_model(small)
    for each in (small, twin):
        each.set_weights([0.9 * weight for weight in small.get_weights()])
    assert kept_positions(small, model).axes["first/kernel"][3].size == 2
    with pytest.raises(ValueError, match="It cannot be told which channels the kernel 'first/kernel'"):
        kept_positions(twin, model)


def test_another_model_is_refused():
    small = tfprune.prune_channels(randomize(chain()), 0.5)
    with pytest.raises(ValueError, match="was not made from 'residual', which has no kernel 'first/kernel'"):
        kept_positions(small, residual())
