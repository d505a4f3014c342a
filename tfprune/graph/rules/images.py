"""`keras.ops` on images and pooling windows: they work along the spatial axes alone."""

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.registry import rule


@rule("MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool", "CropImages", "PadImages")
def _spatial(call: Call) -> np.ndarray | list[np.ndarray]:
    call.constants_vary = type(call.layer).__name__ == "PadImages"  # the border is zero
    return _keep_channels(call)


@rule("Resize", keras.layers.Resizing)
def _resize(call: Call) -> np.ndarray | list[np.ndarray]:
    if call.layer.pad_to_aspect_ratio and (call.layer.fill_mode != "constant" or call.layer.fill_value != 0):
        return call.give_up(f"{call.layer.name!r} pads with a number that is not zero")
    call.constants_vary = call.layer.pad_to_aspect_ratio
    return _keep_channels(call)


@rule(keras.layers.CenterCrop)
def _center_crop(call: Call) -> np.ndarray | list[np.ndarray]:
    return _keep_channels(call)


def _keep_channels(call: Call) -> np.ndarray | list[np.ndarray]:
    rank = len(call.input_shapes[0])
    axis = -rank if (call.layer.data_format or keras.config.image_data_format()) == "channels_first" else -1
    if {*varying_axes(call.inputs[0])} - {axis}:
        return call.give_up(f"{call.layer.name!r} works along the axis of the channels")
    return call.inputs[0]
