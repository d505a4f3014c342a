"""Sizes that are open until data comes, such as that of the batch, where a call asks for them.

`ops.shape(x)[0]` of a symbolic tensor is `None`, and a graph with `reshape(x, (None, 8, 16))` in it cannot run. Which
`None` is a size, and which, is found by running the call once more on sizes that are known.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras

from tfprune.graph.calls import nodes_in_order, renewed

Call = Callable[[Any], Any]
"""Runs a call on symbolic tensors, in the structure of its inputs."""

BATCH, SIZES = 1009, (97, 101, 103, 107, 109)
"""What stands for open sizes: the batch, and the axes after it. No network has them by chance."""


class OpenSizeError(ValueError):
    """A size that is open goes where it cannot be left open."""


def close_sizes(call: Call, inputs: Any, view_of: Callable[[Any], keras.Model]) -> keras.Model:
    """Return what a call computes as a model without open sizes in it.

    Args:
        call: The call.
        inputs: Symbolic tensors, in a structure of its own.
        view_of: Makes a functional model on these inputs from the outputs.

    Returns:
        The model; where sizes are asked for, it reshapes by -1.

    Raises:
        OpenSizeError: If an open size goes elsewhere than into the shape of a reshape, or two that are no batch do.
    """
    outputs = call(inputs)
    view = view_of(outputs)
    nodes = nodes_in_order(view)
    if not any(value is None for node in nodes for value in _told(node)):
        return view
    known = keras.tree.map_structure(lambda each: _known(each) if isinstance(each, keras.KerasTensor) else each, inputs)
    try:
        probe = keras.Model(tensors_in(known), tensors_in(call(known)), name=view.name)
    except Exception as error:
        raise OpenSizeError("it does not run on every size of those that are open.") from error
    new = {id(tensor): tensor for tensor in view.inputs}
    for node, twin in zip(nodes, nodes_in_order(probe), strict=True):
        if type(node.operation) is not type(twin.operation):
            raise OpenSizeError("it does something else for other sizes.")
        args, kwargs = renewed((node.arguments.args, node.arguments.kwargs), new)
        made = _closed(node, twin)(*args, **kwargs)
        new.update((id(old), each) for old, each in zip(node.outputs, keras.tree.flatten(made), strict=True))
    return view_of(renewed(outputs, new))


def tensors_in(structure: Any) -> list[keras.KerasTensor]:
    """Return the symbolic tensors in a structure."""
    return [each for each in keras.tree.flatten(structure) if isinstance(each, keras.KerasTensor)]


def _known(tensor: keras.KerasTensor) -> keras.KerasTensor:
    batch, *sizes = tensor.shape
    sizes = [SIZES[axis % len(SIZES)] if size is None else size for axis, size in enumerate(sizes)]
    return keras.Input(batch_shape=(batch or BATCH, *sizes), dtype=tensor.dtype, name=tensor.name)


def settings(operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """Yield what a call was told besides tensors: its arguments, and the settings of an operation that is no layer."""
    own = {}
    if not isinstance(operation, keras.layers.Layer):
        own = {key: value for key, value in vars(operation).items() if key[0] != "_" and key != "name"}
    for value in keras.tree.flatten((own, args, kwargs)):
        yield from (value.start, value.stop, value.step) if isinstance(value, slice) else (value,)


def _told(node: Any) -> Iterator[Any]:
    return settings(node.operation, node.arguments.args, node.arguments.kwargs)


def _closed(node: Any, twin: Any) -> Any:
    """The operation of a call, with -1 for a size that is open."""
    pairs = list(zip(_told(node), _told(twin), strict=True))
    if all(same_or_no_size(value, known) for value, known in pairs):
        return node.operation
    operation = node.operation
    if type(operation).__name__ != "Reshape" or not type(operation).__module__.startswith("keras."):
        raise OpenSizeError(f"it gives {operation.name!r} a size that is open until data comes.")
    if any(
        size is not None and size != other
        for size, other in zip(operation.newshape, twin.operation.newshape, strict=True)
    ):
        raise OpenSizeError(f"it gives {operation.name!r} another size where one is open.")
    shape = [-1 if size is None else size for size in operation.newshape]
    if shape.count(-1) == 1:
        return type(operation)(tuple(shape), name=operation.name)
    is_batch = twin.operation.newshape[0] == twin.input_tensors[0].shape[0] == BATCH
    if not is_batch or shape.count(-1) > 2:
        raise OpenSizeError(f"it gives {operation.name!r} several sizes that are open until data comes.")
    return keras.layers.Reshape(tuple(shape[1:]), name=operation.name)  # which leaves the batch as it is


def same_or_no_size(value: Any, known: Any) -> bool:
    """Return whether what a call is told on other sizes is the same, or cannot be a size."""
    return not isinstance(known, (int, float)) or value == known
