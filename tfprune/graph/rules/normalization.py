"""Normalization: by stored statistics (exact to prune) or over the channels themselves (not exact)."""

import keras
import numpy as np

from tfprune.graph.rules.axes import config_axis
from tfprune.graph.rules.registry import rule
from tfprune.graph.trace import Call


@rule(keras.layers.BatchNormalization)
def _batch_normalization(call: Call) -> np.ndarray:
    layer = call.layer
    channels = call.along(call.inputs[0], config_axis(layer.axis))
    # Without gamma, a zero input comes out as -mean/deviation, so a mask must cover the mean too.
    call.bind(layer.moving_mean, 0, channels, "statistics" if layer.scale else "affine", "shift")
    call.bind(layer.moving_variance, 0, channels, "statistics")
    call.bind(layer.gamma, 0, channels, "affine", "scale")
    call.bind(layer.beta, 0, channels, "affine", "shift")
    return call.inputs[0]


@rule(keras.layers.LayerNormalization)
def _layer_normalization(call: Call) -> np.ndarray | list[np.ndarray]:
    layer, channels = call.layer, call.inputs[0]
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if len(axes) != 1:
        return call.give_up(f"{layer.name!r} normalizes over several axes")
    axis = config_axis(axes[0])
    call.mix(channels, f"{layer.name!r} normalizes over its channels")
    along = call.along(channels, axis)
    call.bind(layer.gamma, 0, along, "affine", "scale")
    call.bind(layer.beta, 0, along, "affine", "shift")
    return channels
