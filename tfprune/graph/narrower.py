"""How a layer of the user's is made for fewer channels: found by making it for one less, and comparing the two."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph.making import made_from_config
from tfprune.graph.open_sizes import settings
from tfprune.graph.subclassed import first_line
from tfprune.graph.walk import Node, Shape
from tfprune.graph.whole_layers import NotFollowedError, WholeLayer, read_whole


@dataclass(frozen=True)
class Narrow:
    """Sizes of a call with one channel less.

    Attributes:
        before: How many channels go in.
        after: How many channels go in then.
        shapes: The shapes of symbolic tensors (by id).
        variables: The shapes of the layer's variables.
    """

    before: int
    after: int
    shapes: Mapping[int, Shape]
    variables: list[Shape]

    def tensor(self, value: Any) -> Any:
        """Return a symbolic tensor of the shape with fewer channels; anything else as it is."""
        if not isinstance(value, keras.KerasTensor):
            return value
        return keras.KerasTensor(self.shapes[id(value)], value.dtype, name=value.name)


def config_for(
    layer: Any, whole: WholeLayer, args: tuple[Any, ...], kwargs: Mapping[str, Any], narrow: Narrow
) -> tuple[str, ...]:
    """Find out which entries of a layer's config hold the number of channels, by making it for fewer.

    Args:
        layer: The layer.
        whole: What it does.
        args: The positional arguments of a call, with the tensors that the layer is called on.
        kwargs: The keyword arguments.
        narrow: The sizes with fewer channels.

    Returns:
        The entries that must change; none if it takes the number from what it is called on.

    Raises:
        NotFollowedError: If no copy does the same with fewer channels.
    """
    given, named = keras.tree.map_structure(narrow.tensor, (tuple(args), dict(kwargs)))
    try:
        config = layer.get_config()
    except NotImplementedError as error:
        raise NotFollowedError("it has no get_config(), by which it could be made for fewer channels") from error
    sized = [key for key, value in config.items() if type(value) is int and value == narrow.before]
    reason = ""
    for keys in dict.fromkeys([(), *((key,) for key in sized), tuple(sized)]):
        state = random.getstate()
        try:
            copy = made_from_config(layer, {**config, **dict.fromkeys(keys, narrow.after)})
            copy(*given, **named)
            shapes = [tuple(variable.shape) for variable in copy.variables]
            if shapes != narrow.variables:
                reason = reason or f"its variables have the shapes {shapes} instead of {narrow.variables}"
            elif _same(whole, read_whole(copy, given, named), narrow):
                return keys
            else:
                reason = reason or "what it computes depends on how many there are"
        except Exception as error:  # whatever a constructor, `build` or `call` raises that wants another size
            reason = reason or first_line(error)
        finally:
            random.setstate(state)  # what initializers of a copy for a moment draw is not missing later
    raise NotFollowedError(f"it cannot be made for fewer channels: {reason.rstrip('.')}")


def _same(whole: WholeLayer, other: WholeLayer, narrow: Narrow) -> bool:
    """Whether two layers make the same operations, with the same settings, on tensors of the expected shapes."""
    if len(whole.nodes) != len(other.nodes):
        return False
    return all(
        type(first.operation) is type(second.operation)
        # What is made of variables alone is as large as they are.
        and all(
            narrow.shapes.get(id(tensor), other_tensor.shape) == other_tensor.shape
            for tensor, other_tensor in zip(first.outputs, second.outputs, strict=True)
        )
        and all(
            _equal(*pair) or _narrowed(first, pair, narrow) for pair in zip(_told(first), _told(second), strict=True)
        )
        for first, second in zip(whole.nodes, other.nodes, strict=True)
    )


def _narrowed(node: Node, pair: tuple[Any, Any], narrow: Narrow) -> bool:
    """Whether a number tells how many channels a tensor has that is made of variables alone."""
    return id(node.outputs[0]) not in narrow.shapes and pair == (narrow.before, narrow.after)


def _told(node: Node) -> list[Any]:
    return list(settings(node.operation, node.args, dict(node.kwargs)))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, keras.KerasTensor) or isinstance(second, keras.KerasTensor):
        return type(first) is type(second)
    if keras.ops.is_tensor(first) or isinstance(first, np.ndarray):
        return np.array_equal(keras.ops.convert_to_numpy(first), keras.ops.convert_to_numpy(second))
    return bool(first == second) or callable(first)
