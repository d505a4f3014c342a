"""`keras.ops` that move elements: slices, splits, joins, transpositions. Their axes count the batch."""

from typing import Any

import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import compress, config_axis, resized, varying_axes, with_batch, without_batch
from tfprune.graph.rules.merging import concatenate
from tfprune.graph.rules.registry import Alive, rule
from tfprune.graph.rules.reshaping import reshape


def _moved(call: Call, full: np.ndarray) -> np.ndarray | list[np.ndarray]:
    channels = without_batch(full)
    if channels is None:
        return call.give_up(f"{call.layer.name!r} moves channels to the first axis")
    return channels


@rule("Transpose")
def _transpose(call: Call) -> np.ndarray | list[np.ndarray]:
    return _moved(call, np.transpose(with_batch(call.inputs[0]), call.layer.axes))


@rule("Moveaxis")
def _moveaxis(call: Call) -> np.ndarray | list[np.ndarray]:
    return _moved(call, np.moveaxis(with_batch(call.inputs[0]), call.layer.source, call.layer.destination))


@rule("Swapaxes")
def _swapaxes(call: Call) -> np.ndarray | list[np.ndarray]:
    return _moved(call, np.swapaxes(with_batch(call.inputs[0]), call.layer.axis1, call.layer.axis2))


@rule("ExpandDims")
def _expand_dims(call: Call) -> np.ndarray | list[np.ndarray]:
    return _moved(call, np.expand_dims(with_batch(call.inputs[0]), call.layer.axis))


@rule("Squeeze")
def _squeeze(call: Call) -> np.ndarray | list[np.ndarray]:
    shape = (None, *call.input_shapes[0])
    axes = call.layer.axis if call.layer.axis is not None else [at for at, size in enumerate(shape) if size == 1]
    axes = {axis % len(shape) for axis in np.atleast_1d(np.asarray(axes, int)).tolist()}
    if 0 in axes:
        return call.give_up(f"{call.layer.name!r} removes the batch axis")
    return np.squeeze(call.inputs[0], tuple(axis - 1 for axis in axes))


def _resize_reshape(call: Call, config: dict[str, Any], alive: Alive) -> None:
    config["newshape"] = resized(config["newshape"], call.outputs[0], alive)


@rule("Reshape", resize=_resize_reshape)
def _reshape(call: Call) -> np.ndarray | list[np.ndarray]:
    # With the batch in front, so that an operation that joins it with other axes is followed too.
    full = reshape(call, with_batch(call.inputs[0]), (None, *call.input_shapes[0]), (None, *call.output_shapes[0]))
    if isinstance(full, list):
        return full
    channels = without_batch(full)
    if channels is None or not isinstance(call.layer.newshape, (tuple, list)):
        return call.give_up(f"{call.layer.name!r} reshapes in a way that is not followed")
    return call.same_as_before(channels)


@rule("Concatenate")
def _concatenate(call: Call) -> np.ndarray | list[np.ndarray]:
    axis = call.layer.axis
    if axis is None or axis % (len(call.input_shapes[0]) + 1) == 0:
        return call.give_up(f"{call.layer.name!r} joins along the batch")
    return concatenate(call, config_axis(axis))


@rule("Stack")
def _stack(call: Call) -> np.ndarray | list[np.ndarray]:
    if len({axis for channels in call.inputs for axis in varying_axes(channels)}) > 1:
        return call.give_up(f"{call.layer.name!r} combines channels along different axes")
    call.constants_vary = True  # each tensor has its own
    for other in call.inputs[1:]:
        call.tie(call.inputs[0], other)
    return _moved(call, np.expand_dims(with_batch(np.broadcast_arrays(*call.inputs)[0]), call.layer.axis))


@rule("Unstack")
def _unstack(call: Call) -> np.ndarray | list[np.ndarray]:
    axis = call.layer.axis % (len(call.input_shapes[0]) + 1) - len(call.input_shapes[0]) - 1
    if -axis > len(call.input_shapes[0]) or axis in varying_axes(call.inputs[0]):
        return call.give_up(f"{call.layer.name!r} takes channels or the batch apart")
    return [np.squeeze(call.inputs[0], axis)] * len(call.output_shapes)


@rule("Flip", "Roll")
def _reorder(call: Call) -> np.ndarray | list[np.ndarray]:
    rank = len(call.input_shapes[0]) + 1
    axes = None if call.layer.axis is None else np.atleast_1d(call.layer.axis).tolist()
    if axes is None or {axis % rank - rank for axis in axes} & {-rank, *varying_axes(call.inputs[0])}:
        return call.give_up(f"{call.layer.name!r} changes the order of channels or of the batch")
    return call.inputs[0]


@rule("Pad")
def _pad(call: Call) -> np.ndarray | list[np.ndarray]:
    rank = len(call.input_shapes[0]) + 1
    widths = np.broadcast_to(np.asarray(call.layer.pad_width), (rank, 2))
    value = (*call.node.args, None)[1] if "constant_values" not in call.node.kwargs else None
    value = call.node.kwargs.get("constant_values", value)
    if any(widths[axis].any() for axis in (0, *varying_axes(call.inputs[0]))):
        return call.give_up(f"{call.layer.name!r} pads channels or the batch")
    if call.layer.mode == "constant" and not (value is None or (np.isscalar(value) and value == 0)):
        return call.give_up(f"{call.layer.name!r} pads with a number that is not zero")
    call.constants_vary = call.layer.mode == "constant"
    return call.inputs[0]


@rule("Tile")
def _tile(call: Call) -> np.ndarray | list[np.ndarray]:
    repeats = np.atleast_1d(call.layer.repeats)
    rank = len(call.input_shapes[0]) + 1
    if len(repeats) > rank:
        return call.give_up(f"{call.layer.name!r} adds axes")
    repeats = np.concatenate([np.ones(rank - len(repeats), int), repeats])
    if repeats[0] != 1:
        return call.give_up(f"{call.layer.name!r} repeats the batch")
    varying = {axis % rank for axis in varying_axes(call.inputs[0])}
    followed = np.where([axis in varying for axis in range(rank)], repeats, 1)
    return np.tile(call.inputs[0], followed[1:])


@rule("Repeat")
def _repeat(call: Call) -> np.ndarray | list[np.ndarray]:
    rank = len(call.input_shapes[0]) + 1
    if call.layer.axis is None or np.size(call.layer.repeats) != 1 or call.layer.axis % rank == 0:
        return call.give_up(f"{call.layer.name!r} repeats elements in a way that is not followed")
    axis = call.layer.axis % rank - rank
    repeats = int(np.ravel(call.layer.repeats)[0])
    return np.repeat(call.inputs[0], repeats, axis) if axis in varying_axes(call.inputs[0]) else call.inputs[0]


def _resize_split(call: Call, config: dict[str, Any], alive: Alive) -> None:
    axis = _split_axis(call)
    if axis in varying_axes(call.inputs[0]):
        stays = alive[call.along(call.inputs[0], axis)]
        ends = np.cumsum([shape[axis] for shape in call.output_shapes])[:-1]
        config["indices_or_sections"] = [int(stays[:end].sum()) for end in ends]


@rule("Split", "ArraySplit", resize=_resize_split)
def _split(call: Call) -> list[np.ndarray]:
    axis, channels = _split_axis(call), call.inputs[0]
    if -axis > len(call.input_shapes[0]):
        return call.give_up(f"{call.layer.name!r} splits the batch")
    if any(shape[axis] == 0 for shape in call.output_shapes):
        return call.give_up(f"{call.layer.name!r} splits off a part in which nothing is")
    if axis not in varying_axes(channels):
        return [channels] * len(call.output_shapes)
    ends = np.cumsum([shape[axis] for shape in call.output_shapes])[:-1]
    for earlier in call.earlier():
        call.tie(earlier.inputs[0], channels)
    return [compress(part) for part in np.split(channels, ends, axis=axis)]


def _split_axis(call: Call) -> int:
    rank = len(call.input_shapes[0]) + 1
    return call.layer.axis % rank - rank
