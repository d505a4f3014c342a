"""Blocks that are left out: just those, whatever else a model could do without."""

import keras
import numpy as np

from tfprune.graph.exclude import Chosen
from tfprune.layers import ScalingFactor
from tfprune.shrinking.blocks import Blocks

L = keras.layers


def branches_of_zeros(*between):
    """Three blocks of which each adds zeros, as in a network whose last gammas start at zero."""
    inputs = x = keras.Input((4,))
    for index in range(3):
        y = L.BatchNormalization(gamma_initializer="zeros")(L.Dense(4)(x))
        for layer in between:
            y = layer()(y)
        x = L.Add(name=f"block{index}")([x, y])
    return keras.Model(inputs, x)


def test_other_blocks_that_add_zeros_stay():
    model = branches_of_zeros()
    blocks = Blocks(model, Chosen(model, lambda layer: False))
    for count in range(3):
        small = blocks.without(blocks.free[:count])
        assert [layer.name for layer in small.layers if "block" in layer.name] == ["block0", "block1", "block2"][count:]
    assert len(blocks.free) == 3


def test_scaling_factors_become_part_of_weights():
    model = branches_of_zeros(ScalingFactor)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(np.ones(4))
        if isinstance(layer, ScalingFactor):
            layer.factor.assign(3.0)
    blocks = Blocks(model, Chosen(model, lambda layer: False))
    small = blocks.without(blocks.free[:2])
    assert [type(layer).__name__ for layer in small.layers] == ["InputLayer", "Dense", "BatchNormalization", "Add"]
    np.testing.assert_array_equal(small.layers[2].gamma, np.full(4, 3.0))
