"""Convolutions; the axes of their kernels are in `tfprune.graph.kinds`."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.kinds import find_kind
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import channel_axis, on_axis
from tfprune.graph.rules.elementwise import activate, bind_scale_and_shift
from tfprune.graph.rules.registry import Alive, count_alive, rule


def _resize_convolution(call: Call, config: dict[str, Any], alive: Alive) -> None:
    if call.bindings:
        config["filters"] = count_alive(call.outputs[0], alive)
    if _is_depthwise(call.layer):
        config["groups"] = config["filters"] * call.layer.groups // call.layer.filters


@rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, resize=_resize_convolution)
def _convolution(call: Call) -> np.ndarray:
    layer, (kernel,) = call.layer, find_kind(call.layer).kernels
    arriving = call.along(call.inputs[0], channel_axis(layer))
    if _is_depthwise(layer):
        made = np.repeat(arriving, layer.filters // layer.groups)
        call.bind(layer.kernel, kernel.output_axis, made, "affine", "scale")
        return _make(call, made)
    # The same channels go from every group, so that the groups stay equal.
    arriving = arriving.reshape(layer.groups, -1)
    call.tie(arriving[:1], arriving)
    call.folds_constants = layer.groups == 1
    call.bind(layer.kernel, kernel.input_axis, arriving[0], "consumer")
    made = call.produce(layer.kernel, kernel.output_axis)
    call.tie(made.reshape(layer.groups, -1)[:1], made.reshape(layer.groups, -1))
    return _make(call, made)


def _is_depthwise(layer: keras.layers.Layer) -> bool:
    return layer.groups > 1 and layer.kernel.shape[-2] == 1


@rule(
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    width="filters",
)
def _transposed_convolution(call: Call) -> np.ndarray:
    layer, (kernel,) = call.layer, find_kind(call.layer).kernels
    call.bind(layer.kernel, kernel.input_axis, call.along(call.inputs[0], channel_axis(layer)), "consumer")
    return _make(call, call.produce(layer.kernel, kernel.output_axis))


@rule(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def _depthwise(call: Call) -> np.ndarray:
    layer, (kernel,) = call.layer, find_kind(call.layer).kernels
    arriving = call.along(call.inputs[0], channel_axis(layer))
    call.bind(layer.kernel, kernel.input_axis, arriving, "affine", "scale")
    return _make(call, np.repeat(arriving, layer.depth_multiplier))


@rule(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D, width="filters")
def _separable(call: Call) -> np.ndarray:
    layer, (depthwise, pointwise) = call.layer, find_kind(call.layer).kernels
    arriving = call.along(call.inputs[0], channel_axis(layer))
    call.bind(depthwise.of(layer), depthwise.input_axis, arriving, "affine", "scale")
    call.bind(pointwise.of(layer), pointwise.input_axis, np.repeat(arriving, layer.depth_multiplier), "consumer")
    return _make(call, call.produce(pointwise.of(layer), pointwise.output_axis))


def _make(call: Call, made: np.ndarray) -> np.ndarray:
    bind_scale_and_shift(call, made)
    channels = on_axis(made, channel_axis(call.layer), rank=len(call.input_shapes[0]))
    return activate(call, channels, call.layer.activation)
