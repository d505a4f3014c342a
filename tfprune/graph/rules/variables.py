"""Variables that an operation uses directly: where they are multiplied with channels, or added to them."""

import dataclasses
from typing import Any

import keras
import numpy as np

from tfprune.graph.record import Call, Effect, Role
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.walk import Node
from tfprune.graph.whole_layers import NotFollowedError

_MOVING = ("Reshape", "ExpandDims", "Squeeze", "Transpose", "BroadcastTo", "Swapaxes", "Moveaxis", "Tile", "Cast")
_EACH_ALONE = ("Abs", "Absolute", "Exp", "Negative", "Sigmoid", "Softplus", "Sqrt", "Square", "Tanh", "Relu", "Clip")
_WITH_NUMBER = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Power")


@dataclasses.dataclass(frozen=True)
class Part:
    """A tensor that is made of one variable alone.

    Attributes:
        variable: The variable.
        index: Which of its elements stands at each place, as if they were flattened.
        raw: Whether they are only moved, so that a zero of the variable is a zero here.
    """

    variable: keras.Variable
    index: np.ndarray
    raw: bool = True

    @classmethod
    def of(cls, variable: keras.Variable) -> "Part":
        """Return the whole of a variable."""
        return cls(variable, np.arange(int(np.prod(variable.shape))).reshape(variable.shape))

    def axis_along(self, axis: int) -> int | None:
        """Return the axis of the variable that lies along an axis of the tensor, from the first place to the last."""
        size = self.index.shape[axis]
        places = np.moveaxis(self.index, axis, 0).reshape(size, -1)
        for found, coordinates in enumerate(np.unravel_index(places, self.variable.shape)):
            if self.variable.shape[found] == size and (coordinates == np.arange(size)[:, None]).all():
                return found
        return None


def moved(node: Node, part: Part) -> Part:
    """Return what an operation makes of a tensor that is made of one variable alone.

    Args:
        node: The operation.
        part: The tensor.

    Raises:
        NotFollowedError: If it does something else than move elements or change each of them alone.
    """
    name = type(node.operation).__name__
    if name == "Cast":
        return part
    if name in _MOVING:
        if (
            name == "BroadcastTo"
            and tuple(node.operation.shape)[1:] == part.index.shape[1:]
            and part.index.shape[0] == 1
        ):
            return part  # once for each sample, of which channels know nothing
        try:
            index = node.operation(keras.ops.convert_to_tensor(part.index))
        except Exception as error:  # such as a size that is open until data comes
            raise NotFollowedError(f"it moves {part.variable.path!r} in a way that is not followed ({name})") from error
        return Part(part.variable, keras.ops.convert_to_numpy(index), part.raw)
    others = [each for each in keras.tree.flatten((node.args, dict(node.kwargs))) if not _is_symbol(each)]
    numbers = all(each is None or np.ndim(each) == 0 for each in others)
    if name in _EACH_ALONE or (name in _WITH_NUMBER and numbers):
        return Part(part.variable, part.index, raw=False)
    raise NotFollowedError(f"it computes with {part.variable.path!r} in a way that is not followed ({name})")


def _is_symbol(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def joined(call: Call, part: Part, is_first: bool) -> np.ndarray:
    """Follow channels through an operation on a tensor and one that is made of a variable alone.

    Args:
        call: The call, whose only input is the tensor.
        part: What is made of the variable.
        is_first: Whether that comes first, as in `weight - x`.

    Returns:
        The channels that come out.

    Raises:
        NotFollowedError: If the operation does not treat each channel by numbers of its own.
    """
    name, path = type(call.layer).__name__, part.variable.path
    scales = name == "Multiply" or (name in ("Divide", "TrueDivide") and not is_first)
    if not scales and name not in ("Add", "Subtract", "Maximum", "Minimum", "Concatenate"):
        raise NotFollowedError(f"it uses the variable {path!r} in a way that is not followed ({name})")
    part = _aligned(part, call)
    channels = call.inputs[0]
    if name == "Concatenate" and {call.layer.axis % (part.index.ndim + 1) - part.index.ndim - 1} & {
        *varying_axes(channels),
        -part.index.ndim - 1,
    }:
        raise NotFollowedError(f"it lines the variable {path!r} up with channels")
    along = [axis for axis in varying_axes(channels) if part.index.shape[axis] > 1]
    own = {axis: part.axis_along(axis) for axis in along}
    if None in own.values() or len(varying_axes(channels)) > 1:
        raise NotFollowedError(f"the variable {path!r} has not one number, or slice, for each channel")
    shifts = name in ("Add", "Subtract", "Concatenate")
    role: Role = "affine" if part.raw and (name == "Multiply" or shifts) else "statistics"
    effect: Effect | None = None if role == "statistics" else "shift" if shifts else "scale"
    for axis, held in own.items():
        call.bind(part.variable, held or 0, call.along(channels, axis), role, effect)
    if name == "Concatenate" and varying_axes(channels) and not along:
        raise NotFollowedError(f"the variable {path!r} has one number for all channels")
    call.zero_stays_zero = scales or (effect == "shift" and bool(along))
    elsewhere = [axis for axis in range(-part.index.ndim, 0) if axis not in along]
    call.constants_vary = name == "Concatenate" or any(part.index.shape[axis] > 1 for axis in elsewhere)
    return channels


def _aligned(part: Part, call: Call) -> Part:
    """A part with as many axes as the tensor has without the batch, of size 1 where it is the same throughout."""
    shape = call.input_shapes[0]
    ones = (1,) * (len(shape) + 1 - part.index.ndim)
    index = part.index.reshape(ones + part.index.shape)
    longer = index.ndim > len(shape) + 1 or any(a > 1 and b == 1 for a, b in zip(index.shape[1:], shape, strict=False))
    if longer or index.shape[0] != 1:
        raise NotFollowedError(f"the variable {part.variable.path!r} is larger than what it is combined with")
    return dataclasses.replace(part, index=index[0])
