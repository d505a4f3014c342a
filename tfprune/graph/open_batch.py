"""Calls that make tensors of the batch's size, such as the mask of a decoder, while that is open.

    mask = ops.broadcast_to(steps[:, None] >= steps, (ops.shape(x)[0], length, length))

cannot run on symbolic tensors. The call is run for two batches; what differs is the batch. Tensors with equal rows are
made for a batch of one then, and whether the rest of the call broadcasts them is tried out on numbers.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfprune.graph.calls import Tensors, nodes_in_order, renewed
from tfprune.graph.open_sizes import Call, OpenSizeError, same_or_no_size, settings, tensors_in

BATCHES = (7, 11)
"""Two batches, small because tensors of this size are made: what differs between them is the batch or a multiple."""


def close_batch(call: Call, inputs: Any, view_of: Callable[[Any], keras.Model], computed: Call | None) -> keras.Model:
    """Return what a call computes as a model in which tensors of the batch's size are made for a batch of one.

    Args:
        call: The call.
        inputs: Symbolic tensors, in a structure of its own; no size but that of the batch is open.
        view_of: Makes a functional model on these inputs from the outputs.
        computed: Runs the call on arrays, to compare; `None` if only the operations matter.

    Returns:
        The model.

    Raises:
        OpenSizeError: If another size is open, the call counts with the batch or makes numbers that depend on it, or
            the rest of the call does not broadcast what is made for one.
    """
    first, second = (_at_batch(call, inputs, batch) for batch in BATCHES)
    tensors = tensors_in(inputs)
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
    numbers = keras.tree.map_structure(lambda each: _numbers(each) if _is_tensor(each) else each, inputs)
    flat = zip(*map(keras.tree.flatten, (numbers, inputs)), strict=True)
    given = [array for array, tensor in flat if _is_tensor(tensor)]
    expected = keras.tree.flatten(computed(numbers))
    found = keras.tree.flatten(view(given if len(given) > 1 else given[0], training=False))
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-5):
            raise OpenSizeError("it does not compute the same with tensors for a batch of one.")


def _at_batch(call: Call, inputs: Any, batch: int) -> keras.Model:
    def known(tensor: Any) -> Any:
        if not _is_tensor(tensor):
            return tensor
        return keras.Input(batch_shape=(batch, *tensor.shape[1:]), dtype=tensor.dtype, name=tensor.name)

    if any(size is None for tensor in tensors_in(inputs) for size in tensor.shape[1:]):
        raise OpenSizeError("other sizes than that of the batch are open.")
    at_batch = keras.tree.map_structure(known, inputs)
    return keras.Model(tensors_in(at_batch), keras.tree.flatten(call(at_batch)), name="at_batch")


def _for_one(value: Any, other: Any) -> Any:
    """An argument for an open batch, given those for two batches: of an array whose rows are alike, the first."""
    if isinstance(value, (int, float)) and value != other:
        raise OpenSizeError("it counts with the size of the batch.")
    if isinstance(value, (keras.KerasTensor, keras.Variable)) or not hasattr(value, "shape"):
        return value
    array, twin = np.asarray(value), np.asarray(other)
    if np.array_equal(array, twin):
        return value
    first_rows_alike = np.array_equal(array[:1], twin[:1]) and (array == array[:1]).all()
    if (*array.shape[:1], *twin.shape[:1]) == BATCHES and first_rows_alike:
        return keras.ops.convert_to_tensor(array[:1])
    raise OpenSizeError("it makes numbers that depend on the size of the batch.")


def _on_open_batch(node: Any, twin: Any) -> Any:
    """The operation of a call for an open batch, given those for two batches."""
    operation, kind = node.operation, type(node.operation).__name__
    pairs = list(zip(settings(operation, (), {}), settings(twin.operation, (), {}), strict=True))
    if all(same_or_no_size(value, known) for value, known in pairs):
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


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)
