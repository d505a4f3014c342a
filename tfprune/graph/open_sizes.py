"""Sizes that are open until data comes, such as that of the batch, where a call asks for them.

`ops.shape(x)[0]` of a symbolic tensor is `None`, and a graph with `reshape(x, (None, 8, 16))` in it cannot run. Which
`None` is a size, and which, is found by running the call once more on sizes that are known.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfprune.graph.calls import Tensors, nodes_in_order, renewed

Call = Callable[[Any], Any]
"""Runs a call on symbolic tensors, in the structure of its inputs."""

BATCH, SIZES = 1009, (97, 101, 103, 107, 109)
"""What stands for open sizes: the batch, and the axes after it. No network has them by chance."""


BATCHES = (7, 11)
"""Two batches, small because tensors of this size are made: what differs between them is the batch or a multiple."""


class OpenSizeError(ValueError):
    """A size that is open goes where it cannot be left open."""


def close_sizes(call: Call, inputs: Any, view_of: Callable[[Any], keras.Model], computed: Call | None) -> keras.Model:
    """Return what a call computes as a model without open sizes in it.

    Args:
        call: The call.
        inputs: Symbolic tensors, in a structure of its own.
        view_of: Makes a functional model on these inputs from the outputs.
        computed: Runs the call on arrays, to compare; `None` if only the operations matter.

    Returns:
        The model; where sizes are asked for, it reshapes by -1, and a mask is made for a batch of one.

    Raises:
        OpenSizeError: If an open size goes elsewhere than into the shape of a reshape, or two that are no batch do.
    """
    try:
        return _with_open_sizes(call, inputs, view_of)
    except Exception as error:  # whatever a user's call raises on sizes that are open
        try:
            return _with_open_batch(call, inputs, view_of, computed)
        except Exception:
            raise error from None


def _with_open_sizes(call: Call, inputs: Any, view_of: Callable[[Any], keras.Model]) -> keras.Model:
    outputs = call(inputs)
    view = view_of(outputs)
    nodes = nodes_in_order(view)
    if not any(value is None for node in nodes for value in _told(node)):
        return view
    known = keras.tree.map_structure(lambda each: _known(each) if isinstance(each, keras.KerasTensor) else each, inputs)
    try:
        probe = keras.Model(_tensors(known), _tensors(call(known)), name=view.name)
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


def _with_open_batch(
    call: Call, inputs: Any, view_of: Callable[[Any], keras.Model], computed: Call | None
) -> keras.Model:
    """The model of a call that makes tensors of the batch's size, such as masks: it makes them for a batch of one.

    Whether the rest of the call broadcasts them is tried out on numbers.
    """
    first, second = (_at_batch(call, inputs, batch) for batch in BATCHES)
    tensors = _tensors(inputs)
    new: Tensors = {id(known): tensor for known, tensor in zip(first.inputs, tensors, strict=True)}
    nodes = nodes_in_order(first)
    for node, twin in zip(nodes, nodes_in_order(second), strict=True):
        if type(node.operation) is not type(twin.operation):
            raise OpenSizeError("it does something else for another batch.")
        pairs = [(node.arguments.args, twin.arguments.args), (node.arguments.kwargs, twin.arguments.kwargs)]
        args, kwargs = (renewed(keras.tree.map_structure(_for_one, *pair), new) for pair in pairs)
        made = _on_open_batch(node, twin)(*args, **kwargs)
        new.update((id(old), each) for old, each in zip(node.outputs, keras.tree.flatten(made), strict=True))
    view = view_of([new[id(tensor)] for tensor in first.outputs])
    if computed is not None:
        _compare(view, inputs, computed)
    return view


def _compare(view: keras.Model, inputs: Any, computed: Call) -> None:
    """Raise if a view computes something else than the call."""
    numbers = keras.tree.map_structure(lambda each: _numbers(each) if is_tensor(each) else each, inputs)
    flat = zip(*map(keras.tree.flatten, (numbers, inputs)), strict=True)
    given = [array for array, tensor in flat if is_tensor(tensor)]
    expected = keras.tree.flatten(computed(numbers))
    found = keras.tree.flatten(view(given if len(given) > 1 else given[0], training=False))
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-5):
            raise OpenSizeError("it does not compute the same with tensors for a batch of one.")


def _at_batch(call: Call, inputs: Any, batch: int) -> keras.Model:
    def known(tensor: Any) -> Any:
        if not is_tensor(tensor):
            return tensor
        return keras.Input(batch_shape=(batch, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name)

    if any(size is None for tensor in _tensors(inputs) for size in tensor.shape[1:]):
        raise OpenSizeError("other sizes than that of the batch are open.")
    at_batch = keras.tree.map_structure(known, inputs)
    return keras.Model(_tensors(at_batch), _tensors(call(at_batch)), name="at_batch")


def _for_one(value: Any, other: Any) -> Any:
    """An argument for an open batch, given those for two batches: of an array whose rows are alike, the first."""
    if is_tensor(value) or not hasattr(value, "shape") or isinstance(value, keras.Variable):
        if not is_tensor(value) and isinstance(value, (int, float)) and value != other:
            raise OpenSizeError("it counts with the size of the batch.")
        return value
    array, twin = np.asarray(value), np.asarray(other)
    if array.shape == twin.shape and np.array_equal(array, twin):
        return value
    sizes = (array.shape[:1], twin.shape[:1])
    if (
        sizes == tuple((batch,) for batch in BATCHES)
        and (array == array[:1]).all()
        and np.array_equal(array[:1], twin[:1])
    ):
        return keras.ops.convert_to_tensor(array[:1])
    raise OpenSizeError("it makes numbers that depend on the size of the batch.")


def _on_open_batch(node: Any, twin: Any) -> Any:
    """The operation of a call for an open batch, given those for two batches."""
    operation, kind = node.operation, type(node.operation).__name__
    pairs = list(zip(settings(operation, (), {}), settings(twin.operation, (), {}), strict=True))
    if all(_same(value, known) for value, known in pairs):
        return operation
    of_keras = type(operation).__module__.startswith("keras.")
    if of_keras and kind == "Reshape":
        sizes = zip(operation.newshape, twin.operation.newshape, strict=True)
        shape = tuple(size if size == other else -1 for size, other in sizes)
        if shape.count(-1) == 1:
            return type(operation)(shape, name=operation.name)
    if of_keras and kind == "BroadcastTo":
        given = node.input_tensors[0].shape
        if given[: len(given) - len(operation.shape) + 1] in ((), (1,)):
            return type(operation)((1, *operation.shape[1:]), name=operation.name)
    raise OpenSizeError(f"it gives {operation.name!r} a size that is open until data comes.")


def _numbers(tensor: keras.KerasTensor) -> np.ndarray:
    random = np.random.default_rng(0)
    shape = (3, *tensor.shape[1:])
    return random.normal(size=shape).astype(tensor.dtype) if "float" in tensor.dtype else np.ones(shape, tensor.dtype)


def is_tensor(value: Any) -> bool:
    """Return whether this is a symbolic tensor."""
    return isinstance(value, keras.KerasTensor)


def _tensors(structure: Any) -> list[keras.KerasTensor]:
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
    if all(_same(value, known) for value, known in pairs):
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


def _same(value: Any, known: Any) -> bool:
    return not isinstance(known, (int, float)) or value == known
