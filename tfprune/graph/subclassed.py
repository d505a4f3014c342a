"""Functional views of models and layers that compute in a `call` of their own."""

import inspect
import itertools
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import keras

from tfprune.graph.calls import nodes_in_order
from tfprune.graph.open_sizes import close_sizes

_MODEL_VIEWS: "WeakKeyDictionary[keras.Model, keras.Model]" = WeakKeyDictionary()
_LAYER_VIEWS: "WeakKeyDictionary[keras.layers.Layer, tuple[Any, keras.Model | None]]" = WeakKeyDictionary()


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
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"The model {model.name!r} ({type(model).__name__}) computes in its own call(), which cannot be read "
                f"layer by layer: {reason} Use layers and keras.ops in call(), or express the model as "
                "keras.Model(inputs, outputs) or keras.Sequential."
            ) from error
    return _MODEL_VIEWS[model]


def layer_view(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> keras.Model | None:
    """Return a functional model that computes what a layer made of other layers does in one call.

    Args:
        layer: A layer, or model, with a `call` of its own.
        args: The positional arguments of the call, with symbolic tensors.
        kwargs: The keyword arguments.

    Returns:
        A model with one input for each tensor, the same one each time; `None` if the layer holds no layers, or its
        `call` cannot be read.

    Raises:
        ValueError: If a layer that can be read is called on tensors of different shapes.
    """
    signature = keras.tree.map_structure(_signature, (args, dict(kwargs)))
    if layer not in _LAYER_VIEWS:
        _LAYER_VIEWS[layer] = (signature, _try_layer(layer, args, kwargs))
    known, view = _LAYER_VIEWS[layer]
    if view is not None and str(known) != str(signature):
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) is called on different shapes or arguments, so it "
            "cannot be read layer by layer. Call one layer object for each, or express it as keras.Model(inputs, "
            "outputs)."
        )
    return view


def _signature(value: Any) -> Any:
    return f"{value.shape}" if isinstance(value, keras.KerasTensor) else value


def _try_layer(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> keras.Model | None:
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
        return keras.Model(_unpack(inputs), _unpack(keras.tree.flatten(outputs)), name=layer.name)

    try:
        view = close_sizes(lambda structure: _run(layer, *structure), (args, named), view_of)
        _check(layer, view, args, named)
    except Exception:  # whatever a user's call raises on symbolic tensors: the layer is then one without a rule
        return None
    # A Lambda of the layer's own is loaded with the layer; in a model it would have to be allowed by `safe_mode=False`.
    held = [each for each in view.layers if isinstance(each, keras.layers.Layer)]
    readable = any(each.weights for each in held) and not any(isinstance(each, keras.layers.Lambda) for each in held)
    return view if readable else None


def _unpack(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _trace_model(model: keras.Model) -> keras.Model:
    def view_on(inputs: Any) -> keras.Model:
        return close_sizes(
            lambda each: _run(model, (each,), {}), inputs, lambda outputs: keras.Model(inputs, outputs, name=model.name)
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
    _check(model, view, (inputs,), {})
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


def _run(layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool | None = None) -> Any:
    """Call `layer.call` on symbolic tensors; layers inside it find out themselves whether they train."""
    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": training}
    with _WatchedScope() as scope:
        outputs = layer.call(*args, **kwargs)
    if scope.read:
        raise UnreadableError(f"it uses the variable {scope.read[0]!r} directly, not through a layer.")
    if scope.losses:
        raise UnreadableError("it adds a loss.")
    return outputs


def _check(layer: keras.layers.Layer, view: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if the view leaves out something that the call does."""
    for node in nodes_in_order(view):
        for variable in raw_variables(node.arguments.args, node.arguments.kwargs):
            raise UnreadableError(f"it uses the variable {variable.path!r} directly, not through a layer.")
    held = {id(weight) for weight in view.weights}
    for weight in layer.weights:
        if id(weight) not in held:
            raise UnreadableError(f"its variable {weight.path!r} does not belong to a layer that is called.")
    if "training" in inspect.signature(layer.call).parameters:
        outputs = keras.tree.flatten(_run(layer, args, kwargs, training=True))
        if _kinds(keras.Model(view.inputs, outputs, name=view.name)) != _kinds(view):
            raise UnreadableError("it does something else in training.")


def raw_variables(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[keras.Variable]:
    """Return the variables among the arguments of a call."""
    flat = keras.tree.flatten((tuple(args), dict(kwargs)))
    return [value for value in flat if isinstance(value, keras.Variable)]


def _kinds(view: keras.Model) -> list[str]:
    return [type(node.operation).__name__ for node in nodes_in_order(view)]
