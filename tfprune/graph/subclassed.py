"""Functional views of models and layers that compute in a `call` of their own."""

import contextlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras

from tfprune.graph.calls import nodes_in_order
from tfprune.graph.chains import chains, children, teacher_of
from tfprune.graph.open_batch import close_batch
from tfprune.graph.open_sizes import Call, close_sizes

_MODEL_VIEWS: "WeakKeyDictionary[keras.Model, keras.Model]" = WeakKeyDictionary()
_LAYER_VIEWS: "WeakKeyDictionary[keras.layers.Layer, dict[str, keras.Model | str]]" = WeakKeyDictionary()
"""For each layer and each kind of arguments, the model that it stands for, or why there is none."""

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]


class UnreadableError(ValueError):
    """A `call` that does something else than passing tensors through layers and operations."""


def model_view(model: keras.Model) -> keras.Model:
    """Return a functional model over the same layers as a subclassed model.

    Args:
        model: A built model with its own `call`, whose first argument holds all inputs.

    Returns:
        The view; the same one each time.

    Raises:
        ValueError: If `call` cannot be run on symbolic tensors, reads variables directly, adds losses, or computes
            something else in training than a `training` argument of its layers tells.
    """
    if model not in _MODEL_VIEWS:
        try:
            _MODEL_VIEWS[model] = _trace_model(model)
        except Exception as error:
            if type(model).call is keras.Model.call:
                raise ValueError(without_call(model)) from error
            raise ValueError(
                f"The model {model.name!r} ({type(model).__name__}) computes in its own call(), which cannot be read "
                f"layer by layer: {first_line(error)} Use layers and keras.ops in call(), or express the model as "
                "keras.Model(inputs, outputs) or keras.Sequential."
            ) from error
    return _MODEL_VIEWS[model]


def without_call(model: keras.Model) -> str:
    """Return what to say of a model whose class only trains others, such as a GAN."""
    if teacher_of(model) is not None:
        return (
            f"The model {model.name!r} ({type(model).__name__}) has no call(), so nothing says what it computes. Give "
            "it one that returns self.student(inputs, training=training), and build it; or train "
            "tfprune.distill(model.student, model.teacher) in its place."
        )
    held = [f"model.{name}" for name, value in vars(model).items() if isinstance(value, keras.Model)]
    return (
        f"The model {model.name!r} ({type(model).__name__}) has no call(), so nothing says what it computes. "
        f"Prune the models that it holds one by one{': ' if held else ''}{', '.join(held)}."
    )


def layer_view(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> keras.Model | str:
    """Return a functional model that computes what a layer made of other layers does in one call.

    Args:
        layer: A layer, or model, with a `call` of its own.
        args: The positional arguments of the call, with symbolic tensors.
        kwargs: The keyword arguments.

    Returns:
        A model with one input for each tensor, the same one each time for the same shapes; or why there is none.
    """
    called = signature((args, dict(kwargs)))
    views = _LAYER_VIEWS.setdefault(layer, {})
    if called not in views:
        views[called] = _try_layer(layer, args, kwargs)
    return views[called]


def signature(arguments: Any) -> str:
    """Return what tells calls of a layer apart: the shapes of tensors, and all other arguments."""
    return str(keras.tree.map_structure(_shape_or_self, arguments))


def _shape_or_self(value: Any) -> Any:
    return f"{value.shape}" if isinstance(value, keras.KerasTensor) else value


def general_arguments(calls: Sequence[Arguments]) -> Arguments | None:
    """Return arguments that stand for those of several calls of one layer.

    Args:
        calls: The positional and keyword arguments of each call.

    Returns:
        The arguments, in which sizes of tensors that differ are open; `None` if more than sizes differs.

    Example:

    >>> first, second = (keras.KerasTensor((None, size, 4)) for size in (8, 16))
    >>> general_arguments([((first,), {}), ((second,), {})])[0][0].shape
    (None, None, 4)
    """
    flat = [keras.tree.flatten(call) for call in calls]
    merged = [_general(values) for values in zip(*flat, strict=False)]
    alike = len({len(values) for values in flat}) == 1 and all(fits for fits, _ in merged)
    found = keras.tree.pack_sequence_as(calls[0], [value for _, value in merged]) if alike else None
    return found


def _general(values: Sequence[Any]) -> tuple[bool, Any]:
    """Whether these arguments differ in nothing but sizes, and what stands for all of them."""
    first = values[0]
    if not all(isinstance(value, keras.KerasTensor) for value in values):
        return len({str(_shape_or_self(value)) for value in values}) == 1, first
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) == 1:
        return True, first
    sizes = [None if len({*each}) > 1 else each[0] for each in zip(*shapes, strict=False)]
    return len({len(shape) for shape in shapes}) == 1, keras.KerasTensor(sizes, first.dtype, name=first.name)


def _try_layer(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> keras.Model | str:
    numbers = itertools.count()
    args, named = keras.tree.map_structure(
        lambda value: (
            _input(value.shape, value.dtype, f"{layer.name}_input_{next(numbers)}")
            if isinstance(value, keras.KerasTensor)
            else value
        ),
        (tuple(args), {key: value for key, value in kwargs.items() if key != "training"}),
    )
    inputs = [each for each in keras.tree.flatten((args, named)) if isinstance(each, keras.KerasTensor)]

    def view_of(outputs: Any) -> keras.Model:
        if not all(isinstance(each, keras.KerasTensor) for each in keras.tree.flatten(outputs)):
            raise UnreadableError("it returns something that does not depend on what goes in.")
        return keras.Model(_unpack(inputs), _unpack(keras.tree.flatten(outputs)), name=layer.name)

    def view_in(training: bool | None) -> keras.Model:
        return _closed(
            lambda structure: run_on_symbols(layer, structure[0], structure[1], training),
            (args, named),
            view_of,
            None if training else lambda structure: layer(*structure[0], **structure[1]),
        )

    try:
        view = view_in(None)
        _check(layer, view, view_in)
    except Exception as error:  # whatever a user's call raises on symbolic tensors
        return first_line(error)
    # A Lambda of the layer's own is loaded with the layer; in a model it would have to be allowed by `safe_mode=False`.
    if any(isinstance(each, keras.layers.Lambda) for each in _deep(view)):
        return "it holds a Lambda, which only the layer itself can load."
    function = next((found for each in _deep(view) for found in _plain_functions(each)), None)
    if function is not None:
        return (
            f"it holds the function {function!r}, which is not registered, so that only the layer itself can load it."
        )
    return view if any(each.weights for each in view.layers) else "it holds no layers with weights."


def _deep(view: keras.Model) -> Iterator[Any]:
    for layer in view.layers:
        yield layer
        yield from (chain[-1] for chain in chains(layer))


def _closed(call: Call, inputs: Any, view_of: Callable[[Any], keras.Model], computed: Call | None) -> keras.Model:
    """What a call computes as a model without open sizes in it."""
    try:
        return close_sizes(call, inputs, view_of)
    except Exception as error:  # whatever a user's call raises on sizes that are open
        try:
            return close_batch(call, inputs, view_of, computed)
        except Exception:
            raise error from None  # which says more about the call than what it raises on sizes of our own


def _plain_functions(layer: keras.layers.Layer) -> Iterator[str]:
    """The names of functions in the config of a layer of Keras that a file names, and Keras does not find."""
    if not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.Model):
        return
    try:
        config = layer.get_config()
    except NotImplementedError:
        return
    for value in config.values():
        if isinstance(value, dict) and value.get("registered_name") == "function":
            yield value["config"]


def first_line(error: Exception) -> str:
    """Return what an exception says first, or its class; of one that Keras wraps in another, what that says."""
    text = str(error).strip()
    wrapped = _WRAPPED.match(text)
    return first_line(Exception(wrapped[1])) if wrapped else next(iter(text.splitlines()), type(error).__name__)


_WRAPPED = re.compile("Exception encountered when calling .*?\x1b\\[1m(.+?)\x1b\\[0m", re.DOTALL)
"""How Keras tells of an exception in a `call`: it prints what was raised in bold."""


def _unpack(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _trace_model(model: keras.Model) -> keras.Model:
    def view_on(inputs: Any, training: bool | None = None) -> keras.Model:
        return _closed(
            lambda each: run_on_symbols(model, (each,), {}, training),
            inputs,
            lambda outputs: keras.Model(inputs, outputs, name=model.name),
            None if training else model,
        )

    inputs = _symbolic_inputs(model)
    view = view_on(inputs)
    tokens = {
        id(tensor)
        for node in nodes_in_order(view)
        if isinstance(node.operation, keras.layers.Embedding)
        for tensor in node.input_tensors
    }
    if any(id(tensor) in tokens for tensor in view.inputs):  # shapes do not tell that these are whole numbers
        inputs = keras.tree.map_structure(
            lambda tensor: _input(tensor.shape, "int32" if id(tensor) in tokens else tensor.dtype, tensor.name), inputs
        )
        view = view_on(inputs)
    _check(model, view, lambda training: view_on(inputs, training))
    return view


def _symbolic_inputs(model: keras.Model) -> Any:
    if getattr(model, "inputs", None):  # a functional model with a call of its own
        return keras.tree.map_structure(lambda tensor: _input(tensor.shape, tensor.dtype, tensor.name), model.input)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise UnreadableError("it was not built from one shape, list or dict of shapes.")
    return _inputs_of(shape, "inputs")


def _inputs_of(shape: Any, name: str) -> Any:
    """Symbolic inputs for a shape or a structure of shapes; a dict gives the names."""
    if isinstance(shape, dict):
        return {key: _inputs_of(each, key) for key, each in shape.items()}
    if shape and isinstance(shape[0], (list, tuple, dict)):
        return [_inputs_of(each, f"{name}_{index}") for index, each in enumerate(shape)]
    return _input(shape, keras.config.floatx(), name)


def _input(shape: Any, dtype: str, name: str | None = None) -> keras.KerasTensor:
    return keras.Input(batch_shape=(None, *shape[1:]), dtype=dtype, name=name)


class _WatchedScope(keras.StatelessScope):
    """Notices when a variable's value is read outside of the layers, where tracing would make it a constant."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self.read: list[str] = []

    def get_current_value(self, variable: keras.Variable) -> Any:
        self.read.append(variable.path)
        return super().get_current_value(variable)


@contextlib.contextmanager
def _described_by_what_they_do(layer: keras.layers.Layer) -> Iterator[None]:
    """Let layers of the user's inside a layer, of whose call Keras can make no node, pass on what they call themselves.

    Such are one that returns `None` beside a tensor, and a subclass whose `call` takes other arguments than the
    `compute_output_spec` that it inherits.
    """

    own = {id(chain[-1]) for chain in chains(layer) if not type(chain[-1]).__module__.startswith("keras.")}
    call = keras.layers.Layer.__call__

    def passed_on(inner: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(inner, *args, **kwargs)
        except Exception:  # whatever Keras or a user's call raises; if it is the call itself, it does so again
            if id(inner) not in own:
                raise
        return inner.call(*args, **kwargs)

    keras.layers.Layer.__call__ = passed_on
    try:
        yield
    finally:
        keras.layers.Layer.__call__ = call


def run_on_symbols(
    layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool | None = None
) -> Any:
    """Call `layer.call` on symbolic tensors; layers inside it find out themselves whether they train.

    Args:
        layer: The layer.
        args: The positional arguments, with symbolic tensors.
        kwargs: The keyword arguments.
        training: What `call` is told, if it takes it.

    Returns:
        The outputs.

    Raises:
        UnreadableError: If it reads the value of a variable, or adds a loss.
    """
    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": training}
    with _WatchedScope() as scope, _described_by_what_they_do(layer):
        try:
            outputs = layer.call(*args, **kwargs)
        except (TypeError, ValueError) as error:
            if "NoneType" not in str(error):
                raise
            raise UnreadableError(
                "it makes a tensor, such as random numbers, of a size that is open until data comes; in a layer of its "
                "own that would be kept as it is."
            ) from error
    if scope.read:
        raise UnreadableError(f"it uses the variable {scope.read[0]!r} directly, not through a layer.")
    if scope.losses:
        raise UnreadableError("it adds a loss.")
    return outputs


def _check(layer: keras.layers.Layer, view: keras.Model, view_in: Callable[[bool], keras.Model]) -> None:
    """Raise if the view leaves out something that the call does."""
    for node in nodes_in_order(view):
        for variable in raw_variables(node.arguments.args, node.arguments.kwargs):
            raise UnreadableError(f"it uses the variable {variable.path!r} directly, not through a layer.")
    held = {id(weight) for weight in view.weights}
    # A teacher, or whatever else `train_step` alone calls, is no part of what a model computes.
    aside = children(layer) if isinstance(layer, keras.Model) else []
    aside = [each for each in aside if not held & {id(weight) for weight in each.weights}]
    left_out = {id(weight) for each in aside for weight in each.weights}
    for weight in layer.weights:
        if id(weight) not in held | left_out:
            raise UnreadableError(f"its variable {weight.path!r} does not belong to a layer that is called.")
    if "training" in inspect.signature(layer.call).parameters and _kinds(view_in(True)) != _kinds(view):
        raise UnreadableError("it does something else in training.")


def raw_variables(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[keras.Variable]:
    """Return the variables among the arguments of a call."""
    flat = keras.tree.flatten((tuple(args), dict(kwargs)))
    return [value for value in flat if isinstance(value, keras.Variable)]


def _kinds(view: keras.Model) -> list[str]:
    return [type(node.operation).__name__ for node in nodes_in_order(view)]
