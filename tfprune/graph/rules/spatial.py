"""Layers that work along the spatial axes and leave channels where they are."""

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import channel_axis, on_axis
from tfprune.graph.rules.registry import rule

layers = keras.layers


@rule(
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.ZeroPadding2D, layers.ZeroPadding3D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling2D, layers.UpSampling3D),
)
def _spatial(call: Call) -> np.ndarray:
    axis = channel_axis(call.layer)
    return on_axis(call.along(call.inputs[0], axis), axis, rank=len(call.input_shapes[0]))


@rule(layers.ZeroPadding1D, layers.Cropping1D, layers.UpSampling1D)
def _temporal(call: Call) -> np.ndarray:
    return on_axis(call.along(call.inputs[0], -1), -1, rank=2)


@rule(
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
)
def _global_pooling(call: Call) -> np.ndarray:
    axis = channel_axis(call.layer)
    channels = call.along(call.inputs[0], axis)
    return on_axis(channels, axis, rank=len(call.input_shapes[0])) if call.layer.keepdims else channels
