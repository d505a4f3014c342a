"""Where the channels of a group can be seen while a model runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfprune.graph import Analysis, ChannelGroup
from tfprune.graph.chains import children
from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.statistics.taps import Taps


@dataclass(frozen=True)
class Place:
    """A tensor that carries channels of a group: what goes into a layer, or comes out of it.

    Attributes:
        layer: The layer.
        side: Whether it goes in or comes out.
        index: Which of the floating point tensors that go in or come out it is.
        axes: The axes, counted from the end, along which the channels lie.
        channels: For each position on these axes, flattened, the channel of the group; the group's size for others.
        size: The size of the group.
    """

    layer: keras.layers.Layer
    side: Literal["inputs", "outputs"]
    index: int
    axes: tuple[int, ...]
    channels: np.ndarray
    size: int

    def tensors(self, taps: Taps) -> list[Any]:
        """Return the tensors of a batch: one for each call of the layer."""
        return [getattr(passed, self.side)[self.index] for passed in taps.of(self.layer)]

    def per_channel(self, numbers: Any) -> Any:
        """Sum numbers over the positions of each channel.

        Args:
            numbers: A tensor of the shape of the tensor at this place.

        Returns:
            A tensor of shape (samples, channels).
        """
        rank = len(numbers.shape)
        others = [axis for axis in range(1, rank) if axis - rank not in self.axes]
        numbers = tf.reshape(tf.reduce_sum(numbers, others), (-1, len(self.channels)))
        if np.array_equal(self.channels, np.arange(self.size)):
            return numbers
        return tf.transpose(tf.math.unsorted_segment_sum(tf.transpose(numbers), self.channels, self.size + 1)[:-1])


def places_of(analysis: Analysis, group: ChannelGroup) -> list[Place]:
    """Return where the channels of a group are read: at the door of each layer whose kernel they are multiplied with.

    That is behind their normalization and activation, and it is all that is lost with a channel. Where they are read
    inside a layer, as heads are in an attention layer, or by an operation that is no layer, it is where they are made.

    Args:
        analysis: The analysis of the model.
        group: One of its groups.

    Returns:
        The places; layers that are called several times come once.
    """
    found: dict[tuple[int, int], Place] = {}
    for call in analysis.trace.calls:
        for index, channels in _read_by(call, analysis, group):
            if not isinstance(call.layer, keras.layers.Layer):
                return _made_by(group)
            found.setdefault((id(call.layer), index), _place(call.layer, index, channels, group))
    return [*found.values()] or _made_by(group)


def _read_by(call: Call, analysis: Analysis, group: ChannelGroup) -> Iterator[tuple[int, np.ndarray]]:
    """The labels of each input of which a call reads channels of the group, by its place among floating point ones."""
    read = [binding.channels for binding in call.bindings if binding.role == "consumer"]
    roots = np.unique(analysis.labels[np.concatenate([np.zeros(0, int), *read, *call.reads])])
    roots = np.intersect1d(roots, group.labels)
    if roots.size:
        floats = (keras.backend.is_float_dtype(tensor.dtype) for tensor in call.node.inputs)
        for index, channels in enumerate(np.compress([*floats], np.arange(len(call.inputs)))):
            labels = analysis.labels[call.inputs[channels]]
            if np.isin(labels, roots).any():
                yield index, labels


def _place(layer: keras.layers.Layer, index: int, labels: np.ndarray, group: ChannelGroup) -> Place:
    axes = tuple(varying_axes(labels))
    flat = labels[tuple(slice(None) if axis - labels.ndim in axes else 0 for axis in range(labels.ndim))].ravel()
    places = np.minimum(np.searchsorted(group.labels, flat), group.size - 1)
    channels = np.where(group.labels[places] == flat, places, group.size)
    return Place(layer, "inputs", index, axes, channels, group.size)


def _made_by(group: ChannelGroup) -> list[Place]:
    """Where the kernels that make the channels are multiplied: what comes out of the layers that hold them themselves.

    The last axes of a kernel are those of what it makes, also of a projection to several heads.
    """
    found = {}
    for member in group.producers:
        holder = _holder(member.layer, member.variable)
        axis = member.axis - len(member.variable.shape)
        channels = np.full(member.variable.shape[axis], group.size)
        channels[member.positions] = member.channels
        found[id(holder), axis] = Place(holder, "outputs", 0, (axis,), channels, group.size)
    return [*found.values()]


def _holder(layer: keras.layers.Layer, variable: keras.Variable) -> keras.layers.Layer:
    inside = [inner for inner in children(layer) if any(each is variable for each in inner.variables)]
    return _holder(inside[0], variable) if inside else layer
