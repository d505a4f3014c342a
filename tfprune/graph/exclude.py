"""Which layers are left alone, and which have settings of their own: one answer for all that take such an argument.

A layer is asked for with all that it lies in. Whoever names a wrapper, a model inside the model or a custom layer means
every layer inside it, in a list as in a function.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeGuard

import keras

from tfprune.graph.chains import Chain, Places, chains

Exclude = Sequence[keras.layers.Layer] | Callable[[keras.layers.Layer], bool] | None
Overrides = Mapping[keras.layers.Layer, float] | Callable[[keras.layers.Layer], float | None] | None


class Chosen:
    """The layers of a model that an argument such as `exclude` chooses.

    Args:
        model: The model.
        chooses: Whether a layer is chosen by itself; asked once for each layer.
    """

    def __init__(self, model: keras.Model, chooses: Callable[[keras.layers.Layer], bool]) -> None:
        self._places = Places.of(model)
        self._chooses = chooses
        self._answers: dict[int, bool] = {}

    def itself(self, layer: keras.layers.Layer) -> bool:
        """Return whether a layer is chosen itself, whatever it lies in."""
        if id(layer) not in self._answers:
            self._answers[id(layer)] = bool(self._chooses(layer))
        return self._answers[id(layer)]

    def __call__(self, layer: keras.Operation) -> bool:
        """Return whether a layer, or any layer that it lies in, is chosen; False for operations."""
        if not isinstance(layer, keras.layers.Layer):
            return False
        return self._any(self._places.of_layer.get(id(layer), [(layer,)]))

    def holds(self, variable: keras.Variable) -> bool:
        """Return whether a layer that holds a variable, or any layer that it lies in, is chosen."""
        return self._any(self._places.of_variable.get(id(variable), []))

    def touches(self, layer: keras.Operation) -> bool:
        """Return whether a layer, any layer that it lies in, or any layer inside it is chosen."""
        return self(layer) or (isinstance(layer, keras.layers.Layer) and self._any(chains(layer)))

    def _any(self, found: Iterable[Chain]) -> bool:
        return any(self.itself(layer) for chain in found for layer in chain)


def resolve_exclude(model: keras.Model, exclude: Exclude, argument: str = "exclude") -> Chosen:
    """Return which layers are chosen, given in either of the two forms.

    Args:
        model: The model that the layers belong to.
        exclude: A list of layer objects, a function from a layer to bool, or `None` for no layer. A layer stands for
            all layers inside it. The function is not asked about `model` itself.
        argument: The name of the argument that the user gave, for the messages.

    Returns:
        Tells of a layer or variable whether it is chosen.

    Raises:
        TypeError: If `exclude` is neither, for example a layer's name.
        ValueError: If a layer is not part of the model.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1)])
    >>> excluded = resolve_exclude(model, [inner])
    >>> excluded(inner.layers[0]), excluded(model.layers[1])
    (True, False)
    """
    if exclude is None:
        return Chosen(model, lambda layer: False)
    if _is_function(exclude):
        return Chosen(model, exclude)
    if not isinstance(exclude, (list, tuple, AbstractSet)) or not _all_layers(exclude):
        raise TypeError(
            f"{argument} must be a list of layer objects or a function from a layer to bool. "
            f"Received: {exclude!r}. For a layer by name, pass [model.get_layer(name)]."
        )
    named = {id(layer) for layer in exclude}
    known = {id(chain[-1]) for chain in chains(model)}
    foreign = [x.name for x in exclude if id(x) not in known and not isinstance(x, keras.layers.InputLayer)]
    if foreign:
        raise ValueError(f"{argument} holds layers that are not in the model {model.name!r}: {foreign}.")
    return Chosen(model, lambda layer: id(layer) in named)


def resolve_overrides(
    model: keras.Model, overrides: Overrides, variables: Sequence[keras.Variable], argument: str = "overrides"
) -> list[Any]:
    """Return the setting of each variable, given for layers in either of two forms.

    Of the layer that holds the variable and those that it lies in, the innermost with a setting decides.

    Args:
        model: The model that the layers belong to.
        overrides: A dict from layer objects to settings, a function from a layer to its setting or `None`, or `None`
            for no settings. A layer stands for all layers inside it.
        variables: The variables that can have a setting.
        argument: The name of the argument that the user gave, for the messages.

    Returns:
        For each variable its setting, or `None`.

    Raises:
        TypeError: If `overrides` is neither, or a key is not a layer.
        ValueError: If a layer in the dict holds none of the variables.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(3)])
    >>> model = keras.Sequential([keras.Input((2,)), inner])
    >>> kernels = [layer.kernel for layer in inner.layers]
    >>> resolve_overrides(model, {inner: 0.5, inner.layers[0]: 0.9}, kernels)
    [0.9, 0.5]
    """
    if overrides is None:
        return [None] * len(variables)
    places = Places.of(model)
    found = [places.of_variable.get(id(variable), []) for variable in variables]
    if _is_function(overrides):
        return [_innermost(each, overrides) for each in found]
    if not isinstance(overrides, Mapping) or not _all_layers(overrides):
        raise TypeError(
            f"{argument} must be a dict from layer objects to settings, or a function from a layer to one. "
            f"Received: {overrides!r}. For a layer by name, use model.get_layer(name) as the key."
        )
    known = {id(layer) for each in found for chain in each for layer in chain}
    unknown = [layer.name for layer in overrides if id(layer) not in known]
    if unknown:
        raise ValueError(
            f"`{argument}` names layers that have no weights to prune in this model, or are excluded: {unknown}. "
            "Give it the layer objects of the model that is trained, such as model.get_layer(...)."
        )
    return [_innermost(each, overrides.get) for each in found]


def _innermost(found: list[Chain], setting: Callable[[keras.layers.Layer], Any]) -> Any:
    for height in range(1, max(map(len, found), default=0) + 1):
        for chain in found:
            value = setting(chain[-height]) if height <= len(chain) else None
            if value is not None:
                return value
    return None


def _is_function(given: Any) -> TypeGuard[Callable[[keras.layers.Layer], Any]]:
    return callable(given) and not isinstance(given, (keras.layers.Layer, type))


def _all_layers(given: Iterable[Any]) -> bool:
    return all(isinstance(each, keras.layers.Layer) for each in given)
