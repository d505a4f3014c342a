"""A changed copy of a model, made call by call."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from tfprune.graph import Node, functional, is_graph, output_structure, room_for, walk
from tfprune.graph.calls import Tensors, renewed
from tfprune.graph.walk import Shape
from tfprune.rewriting.compiling import class_of_copy, compile_like, warn_of_lost_training
from tfprune.rewriting.copies import Copies
from tfprune.rewriting.edits import PLAIN, Edits


class Rewriter:
    """Makes a copy of a model; subclasses say what changes. It is used once.

    The copy has the model's class, name, inputs, outputs, flags and compile settings. A model inside it becomes a
    model inside the copy, or is laid flat. A model with a `call` of its own comes back as a functional one.

    Args:
        edits: What changes around calls.
        output_names: Names for the outputs, in the order of `model.outputs`, by which Keras finds losses, metrics and
            labels: it takes them from what makes an output, which in the copy may be something else. None: they follow.

    Attributes:
        flat: Whether the calls of models inside the model become calls of the copy itself.
        copies: The layers of the copy.
        ends: The names of outputs by the ids of the old tensors. A layer that makes one in the copy can have it; where
            none has, an `Identity` of this name follows.

    Example:

    >>> class Widened(Rewriter):
    ...     def copy(self, layer):
    ...         return self.copies.once(layer, lambda: type(layer)(5, name=layer.name))
    >>> model = keras.Sequential([keras.Input((2,), name="image"), keras.layers.Dense(3, name="classes")])
    >>> copy = Widened().rewrite(model)
    >>> type(copy).__name__, copy.inputs[0].name, copy.get_layer("classes").units
    ('Sequential', 'image', 5)
    """

    flat = False

    def __init__(self, edits: Edits | None = None, output_names: Sequence[str] = ()) -> None:
        self.copies = Copies(rename=self.flat, reserved=output_names)
        self.ends: dict[int, str] = {}
        self._output_names = output_names
        self._edits = edits or {}
        self._models: dict[int, keras.Model] = {}
        self._trains = True

    def copy(self, layer: Any) -> Any:
        """Return what stands for a layer in the copy, the same each time."""
        return self.copies.of(layer)

    def parts(self, layer: Any) -> Sequence[Any]:
        """Return the layers that stand for one in the copy, which are called one after another."""
        return (self.copy(layer),)

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the outputs of a call.

        Not asked for the layers of a `Sequential` model that stays one: their `parts` are called on what comes before.

        Args:
            node: The call.
            args: Its positional arguments, with the tensors of the copy.
            kwargs: Its keyword arguments.

        Returns:
            The outputs, in any structure.
        """
        first, *others = self.parts(node.operation)
        made = first(*args, **kwargs)
        for layer in others:
            made = layer(made)
        return made

    def opened(self, node: Node) -> keras.Model | None:
        """Return the model that a call stands for, to make it anew call by call too, or `None` for any other layer."""
        return None

    def shapes(self, operation: Any, model: keras.Model) -> Sequence[Shape]:
        """Return the input shapes of the copy of a model, which `operation` is or stands for."""
        return [tensor.shape for tensor in model.inputs]

    def enter(self, old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        """Return what the calls read of an input, given the old tensor and the new one."""
        return new

    def rewrite(self, model: keras.Model, trains: bool = True) -> keras.Model:
        """Return the copy.

        Args:
            model: A built Sequential, functional or subclassed Keras model; it is not changed.
            trains: Whether the copy is one to train. What only the converter sees is not compiled, and nobody has to
                hear that it lacks a `train_step`.

        Returns:
            A new model.

        Raises:
            TypeError: If `model` is not a Keras 3 model.
            ValueError: If it is not built, or cannot be read layer by layer.
        """
        self._trains = trains
        copy = self._remade(model, functional(model))
        self.copies.set_weights()
        if trains:
            warn_of_lost_training(model, copy)
        return copy

    def _remade(self, original: Any, view: keras.Model) -> keras.Model:
        """The copy of a model, or of a layer that a model stands for."""
        inputs = self._inputs(original, view)
        chained = isinstance(original, keras.Sequential) and not self.flat
        copy = self._sequential(original, view, *inputs) if chained else self._functional(original, view, inputs)
        if not original.trainable:  # its layers know, but the flag of a model is not in its config
            copy.trainable = False
        if self._trains and isinstance(original, keras.Model):
            compile_like(original, copy)
        return copy

    def _inputs(self, original: Any, view: keras.Model) -> list[keras.KerasTensor]:
        layers = {id(layer.output): layer for layer in view.layers if isinstance(layer, keras.layers.InputLayer)}
        made = []
        for tensor, shape in zip(view.inputs, self.shapes(original, view), strict=True):
            config = layers[id(tensor)].get_config()
            named = {"name": self.copies.unused(config["name"]), "batch_shape": shape}
            made.append(keras.layers.InputLayer.from_config({**config, **named}).output)
        return made

    def _sequential(self, original: keras.Sequential, view: keras.Model, entrance: keras.KerasTensor) -> keras.Model:
        steps = list(self._steps(view))
        with room_for(len(steps)):
            return class_of_copy(original, keras.Sequential)([entrance, *steps], name=original.name)

    def _steps(self, view: keras.Model) -> Iterator[keras.layers.Layer]:
        """The layers of a Sequential model, which take one tensor and nothing else."""
        for node in walk(view):
            edit = self._edits.get(node.key, PLAIN)
            if not edit.skips:
                inner = self.opened(node)
                yield from self.parts(node.operation) if inner is None else [self._model(node.operation, inner)]
            if edit.after is not None:
                yield edit.after

    def _functional(self, original: Any, view: keras.Model, inputs: list[keras.KerasTensor]) -> keras.Model:
        entrances = {id(old): new for old, new in zip(view.inputs, inputs, strict=True)}
        if self._output_names:
            self.ends = dict(zip(map(id, view.outputs), self._output_names, strict=True))
        new = {id(old): self.enter(old, entrances[id(old)]) for old in view.inputs}
        self._replay(view, new)
        kept = class_of_copy(original, type(view)) if is_graph(original) else keras.Model
        first, last = _ends(original, view)
        with room_for(2 * len(new)):  # an edit may put a layer behind each call
            copy = kept(renewed(first, entrances), renewed(last, new), name=original.name)
            if not self._output_names or copy.output_names == list(self._output_names):
                return copy
            for old, name, found in zip(view.outputs, self._output_names, copy.output_names, strict=True):
                if name != found:
                    new[id(old)] = keras.layers.Identity(name=name, dtype=old.dtype)(new[id(old)])
            return kept(renewed(first, entrances), renewed(last, new), name=original.name)

    def _replay(self, view: keras.Model, new: Tensors) -> None:
        """Make all calls of a model, given what takes the place of its inputs."""
        for node in walk(view):
            args, kwargs = renewed((tuple(node.args), dict(node.kwargs)), new)
            outputs = keras.tree.flatten(self._edited(node, args, kwargs))
            new.update((id(old), made) for old, made in zip(node.outputs, outputs, strict=True))

    def _edited(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        edit = self._edits.get(node.key)
        if edit is None:
            return self._called(node, args, kwargs)
        return edit.apply(lambda *changed, **named: self._called(node, changed, named), args, kwargs)

    def _called(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = self.opened(node)
        if inner is None:
            return self.emit(node, args, kwargs)
        tensors = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, keras.KerasTensor)]
        if self.flat:
            new = {id(old): each for old, each in zip(inner.inputs, tensors, strict=True)}
            self._replay(inner, new)
            return [new[id(tensor)] for tensor in inner.outputs]
        model = self._model(node.operation, inner)
        if inner is node.operation:
            return model(*args, **kwargs)
        # It stands for a layer, and takes tensors only, one after another.
        return model(tensors if len(tensors) > 1 else tensors[0])

    def _model(self, operation: Any, inner: keras.Model) -> keras.Model:
        if id(operation) not in self._models:
            view = functional(inner) if inner is operation else inner
            self._models[id(operation)] = self._remade(operation, view)
        return self._models[id(operation)]


def _ends(original: Any, view: keras.Model) -> tuple[Any, Any]:
    """The inputs and outputs of a model in their own structure; a view may have a list for a tensor or a dict."""
    if isinstance(original, keras.Sequential):
        return view.inputs[0], keras.tree.pack_sequence_as(output_structure(original), view.outputs)
    own = original if is_graph(original) else view
    return own.input, own.output
