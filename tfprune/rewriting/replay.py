"""A model built again, call by call."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfprune.graph import Node, functional, is_graph, room_for, walk
from tfprune.rewriting.cloning import copy_adapted_state, made_from_config

Tensors = dict[int, keras.KerasTensor]
"""By the id of a tensor of the old model, the one that takes its place."""

Emit = Callable[[Node, tuple[Any, ...], dict[str, Any]], Any]
"""Makes the outputs of a call from its arguments in the new model."""

Enter = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]


def rewrite(model: keras.Model, emit: Emit, enter: Enter = lambda old, new: new) -> keras.Model:
    """Build a model again, with other layers.

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.
        emit: Makes the outputs of each call.
        enter: Makes what the calls read of an input; given the old tensor and the new one.

    Returns:
        A functional model of the same name, not compiled.
    """
    view = functional(model)
    names = {id(each.output): each.name for each in model.layers if isinstance(each, keras.layers.InputLayer)}
    doors: Tensors = {}
    for tensor in view.inputs:
        doors[id(tensor)] = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=names.get(id(tensor)))
    new = {id(tensor): enter(tensor, doors[id(tensor)]) for tensor in view.inputs}
    replay(view, new, emit)
    # The view has lists where the model may have a tensor or a dict.
    own = model if is_graph(model) else view
    single = isinstance(model, keras.Sequential)
    inputs, outputs = (view.inputs[0], view.outputs[0]) if single else (own.input, own.output)
    with room_for(2 * len(new)):  # a call and the rounding of what it makes
        return keras.Model(_renewed(inputs, doors), _renewed(outputs, new), name=model.name)


def replay(model: keras.Model, new: Tensors, emit: Emit) -> list[keras.KerasTensor]:
    """Make all calls of a model on other tensors.

    Args:
        model: A functional model.
        new: What takes the place of its inputs; the rest is added.
        emit: Makes the outputs of each call.

    Returns:
        What takes the place of its outputs.
    """
    for node in walk(model):
        args, kwargs = _renewed((tuple(node.args), dict(node.kwargs)), new)
        outputs = keras.tree.flatten(emit(node, args, kwargs))
        new.update((id(old), made) for old, made in zip(node.outputs, outputs, strict=True))
    return [new[id(tensor)] for tensor in model.outputs]


def _renewed(structure: Any, new: Tensors) -> Any:
    return keras.tree.map_structure(
        lambda value: new[id(value)] if isinstance(value, keras.KerasTensor) else value, structure
    )


class Copies:
    """Copies of layers, with their weights: of a shared layer one, of operations themselves."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}
        self._names: set[str] = set()
        self._unset: list[tuple[keras.layers.Layer, Sequence[Any], keras.layers.Layer]] = []

    def of(self, operation: Any, **changes: Any) -> Any:
        """Return the copy of a layer.

        Args:
            operation: A layer, or an operation of `keras.ops`.
            **changes: What differs in the copy's config.

        Returns:
            The copy, the same each time; its weights are set by `set_weights`.
        """
        if not isinstance(operation, keras.layers.Layer):
            return operation
        return self.once(("copy", id(operation)), lambda: self.new(operation, operation.variables, **changes))

    def new(self, layer: keras.layers.Layer, weights: Sequence[Any], **changes: Any) -> Any:
        """Return another copy of a layer.

        Args:
            layer: The layer.
            weights: The values of the copy's variables: arrays or variables.
            **changes: What differs in the copy's config.

        Returns:
            The copy.
        """
        copy = made_from_config(layer, {**layer.get_config(), **changes, "name": self.unused(layer.name)})
        self._unset.append((layer, weights, copy))
        return copy

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned for this key the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def unused(self, name: str) -> str:
        """Return a name that no layer has yet: this one, or one with a number."""
        numbered = (f"{name}_{count}" for count in itertools.count(1))
        free = next(each for each in itertools.chain([name], numbered) if each not in self._names)
        self._names.add(free)
        return free

    def set_weights(self) -> None:
        """Set the weights of the copies, which are built by now."""
        for layer, weights, copy in self._unset:
            for target, value in zip(copy.variables, weights, strict=True):
                target.assign(value)
            copy_adapted_state(layer, copy)
