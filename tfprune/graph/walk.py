"""The calls of a Keras model, in the order in which data flows through them."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.graph.calls import nodes_in_order
from tfprune.graph.subclassed import Arguments, general_arguments, layer_view, model_view, without_call

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Node:
    """One call of one layer (a shared layer has several).

    Attributes:
        operation: The layer, nested model or `keras.ops` operation that is called.
        inputs: The symbolic tensors that go in.
        outputs: The symbolic tensors that come out.
        args: The positional arguments of the call, tensors and others.
        kwargs: The keyword arguments of the call.
        general: Arguments that stand for those of all calls of the operation in its model, with open sizes where the
            calls differ; `None` if there are no such arguments.
    """

    operation: keras.Operation
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    general: Arguments | None = None

    @property
    def key(self) -> int:
        """What stands for the call in tables: the id of its first output, as `walk` makes a new `Node` each time."""
        return id(self.outputs[0])

    @property
    def input_shapes(self) -> list[Shape]:
        """The shapes of the inputs, without the batch axis."""
        return [tuple(tensor.shape[1:]) for tensor in self.inputs]

    @property
    def output_shapes(self) -> list[Shape]:
        """The shapes of the outputs, without the batch axis."""
        return [tuple(tensor.shape[1:]) for tensor in self.outputs]


def check_built(model: Any) -> keras.Model:
    """Return `model`, or raise if it is not a built Keras 3 model.

    Args:
        model: What the user gave.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built.

    Example:

    >>> check_built(keras.Sequential([keras.layers.Dense(1)]))
    Traceback (most recent call last):
    ...
    ValueError: The model 'sequential...' is not built, so its weights and shapes are unknown. Call ... first.
    """
    if not isinstance(model, keras.Model):
        if isinstance(model, str | os.PathLike):
            raise TypeError(
                f"Expected a Keras 3 model (keras.Model). Received the path {str(model)!r}. "
                "Load it first: keras.saving.load_model(path)."
            )
        hint = " It comes from tf_keras: build or load it with keras (Keras 3)." if _is_tf_keras(model) else ""
        raise TypeError(f"Expected a Keras 3 model (keras.Model). Received: {type(model).__name__}.{hint}")
    if not model.built and type(model).call is keras.Model.call:
        raise ValueError(without_call(model))
    if not model.built or (isinstance(model, keras.Sequential) and not model.layers):
        raise ValueError(
            f"The model {model.name!r} is not built, so its weights and shapes are unknown. "
            "Call model.build(input_shape), such as model.build((None, 32, 32, 3)), or put keras.Input(shape) first."
        )
    return model


def check_traceable(model: Any) -> keras.Model:
    """Return `model`, or raise if its calls cannot be read.

    Args:
        model: A built `keras.Sequential`, functional `keras.Model`, or subclass of it whose `call` is made of layers
            and `keras.ops`.

    Returns:
        The model.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or its own `call` cannot be read layer by layer.

    Example:

    >>> check_traceable(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])).built
    True
    """
    check_built(model)
    if not is_graph(model):
        model_view(model)
    return model


def walk(model: keras.Model) -> Iterator[Node]:
    """Yield the calls of `model` from inputs to outputs, without descending into nested models.

    Args:
        model: A built Sequential or functional model.

    Yields:
        One `Node` per call, each after the calls that it depends on.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or its own `call` cannot be read layer by layer.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.ReLU()])
    >>> [type(node.operation).__name__ for node in walk(model)]
    ['Dense', 'ReLU']
    """
    nodes = nodes_in_order(functional(model))
    calls: dict[int, list[Arguments]] = {}
    for node in nodes:
        if is_own(node.operation):
            calls.setdefault(id(node.operation), []).append((tuple(node.arguments.args), node.arguments.kwargs))
    general = {key: general_arguments(arguments) for key, arguments in calls.items()}
    for node in nodes:
        arguments = node.arguments
        yield Node(
            node.operation,
            tuple(arguments.keras_tensors),
            tuple(node.outputs),
            tuple(arguments.args),
            arguments.kwargs,
            general.get(id(node.operation)),
        )


def is_own(operation: Any) -> bool:
    """Return whether an operation is a layer of the user's, whose `call` is to be read."""
    return isinstance(operation, keras.layers.Layer) and not type(operation).__module__.startswith("keras.")


def functional(model: keras.Model) -> keras.Model:
    """Return a functional view of `model` over the same layers and symbolic tensors.

    Args:
        model: A built Sequential or functional model.

    Returns:
        A functional model that shares every layer with `model`.

    Example:

    >>> functional(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])).outputs[0].shape
    (None, 2)
    """
    check_traceable(model)
    if not is_graph(model):
        return model_view(model)
    with room_for(len(model.layers)):
        # With a name of its own it would count as one more model, and the next one of the user would get another name.
        return keras.Model(model.inputs, model.outputs, name=model.name)


def output_structure(model: keras.Model) -> Any:
    """Return symbolic outputs of a model in the structure in which it returns them.

    Args:
        model: A Sequential or functional model.

    Returns:
        A tensor, or a list or dict of tensors; those of a Sequential model are not `model.outputs` themselves.

    Example:

    >>> inputs = keras.Input((3,))
    >>> heads = keras.Model(inputs, {"box": keras.layers.Dense(4)(inputs)})
    >>> list(output_structure(keras.Sequential([keras.Input((3,)), heads])))
    ['box']
    """
    # A Sequential model has its outputs as a flat list, and no `output` before it is called.
    return model.compute_output_spec(model.inputs[0]) if isinstance(model, keras.Sequential) else model.output


@contextlib.contextmanager
def room_for(num_calls: int) -> Iterator[None]:
    """Let Keras make a model of so many calls: it follows them by recursion, and Python's limit is 1000.

    Args:
        num_calls: How many calls follow one another at most.

    Example:

    >>> with room_for(3000):
    ...     limit = sys.getrecursionlimit()
    >>> limit >= 6000 > sys.getrecursionlimit()
    True
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 2 * num_calls)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def nested(node: Node, own_sizes: bool = False) -> keras.Model | None:
    """Return the model that is called inside another, or `None` for a call of a plain layer.

    Layers and models with a `call` of their own that is made of other layers are read by running it on symbolic
    tensors. One that is called on several sizes stands for one model with open sizes, so that its weights are shared
    in a copy as well.

    Args:
        node: One call, from `walk`.
        own_sizes: Whether to read this call alone, with the sizes that it has.

    Returns:
        A model with one input for each tensor of `node.inputs`, in this order, and the outputs of `node.outputs`.

    Raises:
        ValueError: If a model inside the model cannot be read layer by layer.

    Example:

    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model = keras.Sequential([keras.Input((3,)), inner])
    >>> [nested(node) is inner for node in walk(model)]
    [True]
    """
    operation = node.operation
    graph = operation if isinstance(operation, keras.Model) and is_graph(operation) else None
    view = graph or _view(node)
    if own_sizes and isinstance(view, keras.Model) and any(None in tensor.shape[1:] for tensor in view.inputs):
        view = layer_view(operation, node.args, node.kwargs)
    return view if isinstance(view, keras.Model) else graph


def unreadable_because(node: Node) -> str:
    """Return why a call of a layer of the user's cannot be read layer by layer; empty for other calls."""
    view = _view(node)
    return view if isinstance(view, str) else ""


def _view(node: Node) -> keras.Model | str | None:
    if not is_own(node.operation):
        return None
    if node.general is None:
        return "it is called with different arguments."
    return layer_view(node.operation, *node.general)


def is_graph(model: Any) -> bool:
    """Return whether a model is functional or Sequential, without a `call` of its own.

    Args:
        model: Any object.

    Returns:
        Whether its layers and their order say all that it does.

    Example:

    >>> is_graph(keras.Sequential([keras.layers.Dense(2)]))
    True
    """
    plain = _functional_class()
    return isinstance(model, (plain, keras.Sequential)) and type(model).call in (
        plain.call,
        keras.Sequential.call,
    )


@functools.cache
def _functional_class() -> Any:
    """The class of functional models, which Keras does not export; named, so that no automatic name is used up."""
    inputs = keras.Input((1,), name="probe")
    return type(keras.Model(inputs, inputs, name="probe"))


def _is_tf_keras(model: Any) -> bool:
    return any(base.__module__.startswith(("tf_keras", "tensorflow.python.keras")) for base in type(model).__mro__)
