"""Slices of symbolic tensors, `x[..., :4]`, and channels taken by number: both are counted again when channels go."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.rules.registry import Alive, Arguments, rule

Key = tuple[Any, ...]


def _rearrange(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], alive: Alive) -> Arguments:
    key = _full_key(call)
    if key is None:
        return args, kwargs
    entries, axis = list(key), -1
    channels = call.inputs[0][None]
    for position, entry in enumerate(key):
        axis += entry is not None
        if entry is None or channels.shape[axis] == 1:
            continue
        stays = alive[np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)[:, 0]]
        if (stays == 1).all():
            continue
        if isinstance(entry, slice):
            start, stop, _ = entry.indices(len(stays))
            entries[position] = slice(int(stays[:start].sum()), int(stays[: max(start, stop)].sum()))
        else:
            entries[position] = int(stays[: entry % len(stays)].sum())
    return (args[0], tuple(entries)), {}


@rule("GetItem", rearrange=_rearrange)
def _get_item(call: Call) -> np.ndarray | list[np.ndarray]:
    key, channels = _full_key(call), call.inputs[0][None]
    if key is None:
        return call.give_up(f"{call.layer.name!r} takes elements by an index that is not followed")
    used = [entry for entry in key if entry is not None]
    if not _is_whole(used[0]):
        return call.give_up(f"{call.layer.name!r} takes a part of the batch")
    lookup: list[Any] = list(key)
    axis = -1
    for position, entry in enumerate(key):
        axis += entry is not None
        if entry is None:
            continue
        if channels.shape[axis] == 1:  # any part of these positions carries the same channels
            lookup[position] = slice(None) if isinstance(entry, slice) else 0
        elif isinstance(entry, slice) and entry.step not in (None, 1):
            return call.give_up(f"{call.layer.name!r} takes channels in steps")
        elif not isinstance(entry, slice):
            call.freeze(np.take(channels, entry, axis), f"{call.layer.name!r} takes it by its number")
    for earlier in call.earlier():
        call.tie(earlier.inputs[0], call.inputs[0])
    taken = channels[tuple(lookup)]
    return taken[0] if taken.shape[0] == 1 else call.give_up(f"{call.layer.name!r} adds an axis before the batch")


def _retake(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], alive: Alive) -> Arguments:
    taken = _taken(call)
    if taken is None:
        return args, kwargs
    axis, indices = taken
    counts = alive[call.along(call.inputs[0], axis)].astype(int)
    ends = np.cumsum(counts)
    places = [place for index in indices for place in range(ends[index] - counts[index], ends[index])]
    return (args[0], [int(place) for place in places]), {}


@rule("Take", rearrange=_retake)
def _take(call: Call) -> np.ndarray | list[np.ndarray]:
    """Channels by constant numbers, as `shrink(select_inputs=True)` leaves them."""
    taken = _taken(call)
    if taken is None:
        return call.give_up(f"{call.layer.name!r} takes elements by an index that is not followed")
    axis, indices = taken
    for earlier in call.earlier():
        call.tie(earlier.inputs[0], call.inputs[0])
    return np.take(call.inputs[0], indices, axis)


def _taken(call: Call) -> tuple[int, np.ndarray] | None:
    """The axis, counted from the end, and the numbers along it; `None` if they vary or take something else."""
    indices, axis = [*call.node.args, *call.node.kwargs.values()][1], call.layer.axis
    if axis is None or isinstance(indices, keras.KerasTensor):
        return None
    indices = np.asarray(indices)
    axis = axis if axis < 0 else axis - len(call.input_shapes[0]) - 1
    plain = indices.ndim == 1 and indices.size and indices.dtype.kind in "iu"
    return (axis, indices) if plain and axis in varying_axes(call.inputs[0]) else None


def _full_key(call: Call) -> Key | None:
    """The key with one entry for each axis of the input, and new axes; `None` if it is no plain slice."""
    key = call.node.kwargs["key"] if "key" in call.node.kwargs else call.node.args[1]
    entries = list(key) if isinstance(key, (tuple, list)) else [key]
    rank = len(call.input_shapes[0]) + 1
    if not all(entry is None or entry is Ellipsis or isinstance(entry, (int, slice)) for entry in entries):
        return None
    used = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if Ellipsis not in entries:
        entries.append(Ellipsis)
    at = entries.index(Ellipsis)
    entries[at : at + 1] = [slice(None)] * (rank - used)
    bounds = [bound for entry in entries if isinstance(entry, slice) for bound in (entry.start, entry.stop, entry.step)]
    return tuple(entries) if all(bound is None or isinstance(bound, int) for bound in bounds) else None


def _is_whole(entry: Any) -> bool:
    return isinstance(entry, slice) and entry in (slice(None), slice(None, None, 1), slice(0, None, None))
