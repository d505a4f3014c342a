"""Which layers are left alone."""

from collections.abc import Callable, Iterator, Sequence

import keras

from tfprune.graph.walk import nested, walk

Exclude = Sequence[keras.layers.Layer] | Callable[[keras.layers.Layer], bool] | None


def resolve_exclude(model: keras.Model, exclude: Exclude) -> Callable[[keras.layers.Layer], bool]:
    """Return a predicate for the layers to leave alone, given in either of the two forms.

    Args:
        model: The model that the layers belong to.
        exclude: A list of layer objects, a predicate, or `None` for no layer. A nested model in the list stands for
            all of its layers.

    Returns:
        A function from a layer to whether it is left alone.

    Raises:
        TypeError: If `exclude` is neither, for example a layer's name.
        ValueError: If a layer is not part of the model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden")])
    >>> resolve_exclude(model, [model.layers[0]])(model.layers[0])
    True
    """
    if exclude is None:
        return lambda layer: False
    if callable(exclude) and not isinstance(exclude, keras.layers.Layer):
        return exclude
    if not isinstance(exclude, (list, tuple, set)) or not all(isinstance(x, keras.layers.Layer) for x in exclude):
        raise TypeError(
            "exclude must be a list of layer objects or a function from a layer to bool. "
            f"Received: {exclude!r}. For a layer by name, pass [model.get_layer(name)]."
        )
    paths = list(_layer_paths(model))
    known = {id(path[-1]) for path in paths}
    foreign = [x.name for x in exclude if id(x) not in known and not isinstance(x, keras.layers.InputLayer)]
    if foreign:
        raise ValueError(f"exclude holds layers that are not in the model {model.name!r}: {foreign}.")
    named = {id(layer) for layer in exclude}
    chosen = {id(path[-1]) for path in paths if named & {id(layer) for layer in path}}
    return lambda layer: id(layer) in chosen


def _layer_paths(
    model: keras.Model, outer: tuple[keras.layers.Layer, ...] = ()
) -> Iterator[tuple[keras.layers.Layer, ...]]:
    """Every layer that is called, behind the nested models that it lies in."""
    for node in walk(model):
        yield (*outer, node.operation)
        inner = nested(node)
        if inner is not None:
            yield from _layer_paths(inner, (*outer, node.operation))
