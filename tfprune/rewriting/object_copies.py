"""Copies of layers that stay as they are, made of the objects themselves instead of their configs."""

from typing import Any

import keras

Made = dict[int, Any]
"""By the id of a layer, variable or container, what stands for it in the copy."""


class CannotCopyError(TypeError):
    """Something that a layer holds and of which no copy can be made."""


def copied_object(layer: keras.layers.Layer) -> Any:
    """Return a layer that computes what a layer does, with variables of its own.

    Nothing depends on what its config says or can say: a setting that `get_config` leaves out, a plain function, or a
    layer inside that only the first call has built come along.

    Args:
        layer: A built layer.

    Returns:
        The copy, with the same weights.

    Raises:
        CannotCopyError: If it holds something of which no copy can be made.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> twin = copied_object(layer)
    >>> twin.kernel is layer.kernel, bool((twin.kernel.numpy() == layer.kernel.numpy()).all())
    (False, True)
    """
    twin = _layer(layer, {})
    paths = [variable.path for variable in layer.variables]
    if [variable.path for variable in twin.variables] != paths:
        raise CannotCopyError(f"{layer.name!r} holds its variables in a way that is not followed.")
    return twin


def _copied(value: Any, made: Made) -> Any:
    if id(value) in made:
        return made[id(value)]
    if isinstance(value, keras.Variable):
        return made.setdefault(id(value), _variable(value))
    if isinstance(value, keras.layers.Layer):
        return _layer(value, made)
    if isinstance(value, keras.random.SeedGenerator):
        twin = keras.random.SeedGenerator.from_config(value.get_config())
        twin.state.assign(value.state)
        return made.setdefault(id(value), twin)
    if isinstance(value, dict):
        return {key: _copied(each, made) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copied(each, made) for each in value))
    if isinstance(value, (list, tuple, set)):
        kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
        return kind(_copied(each, made) for each in value)
    if _holds_state(value):
        raise CannotCopyError(f"a {type(value).__name__} holds variables or layers.")
    return value


def _holds_state(value: Any) -> bool:
    """Whether an object that is no layer holds variables or layers of its own, which a copy would share."""
    state = (keras.Variable, keras.layers.Layer)
    owner = getattr(value, "__self__", None)  # of a bound method
    closed = [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return any(isinstance(each, state) for each in (owner, *closed, *getattr(value, "__dict__", {}).values()))


def _layer(layer: keras.layers.Layer, made: Made) -> Any:
    if isinstance(layer, keras.Model):
        return _model(layer, made)
    kind: Any = type(layer)
    twin = kind.__new__(kind)
    made[id(layer)] = twin
    keras.layers.Layer.__init__(twin, name=layer.name, dtype=layer.dtype_policy, trainable=layer.trainable)
    own = set(vars(twin))
    for name, value in vars(layer).items():
        if name not in own and not name.startswith("_self_"):  # which TensorFlow makes anew for each object
            setattr(twin, name, _copied(value, made))
    for name in ("activity_regularizer", "supports_masking", "autocast", "input_spec"):
        setattr(twin, name, getattr(layer, name))
    # Private: the arguments of the constructor, from which Keras makes the config of a layer without `get_config`.
    twin._auto_config = layer._auto_config
    twin.built = layer.built
    return twin


def _model(model: keras.Model, made: Made) -> Any:
    copy = keras.models.clone_model(model, clone_function=lambda layer: _copied(layer, made))
    made[id(model)] = copy
    return copy


def _variable(variable: keras.Variable) -> keras.Variable:
    twin = keras.Variable(
        variable.numpy(),
        dtype=variable.dtype,
        trainable=variable.trainable,
        aggregation=variable.aggregation,
        name=variable.name,
        # Private: the constructor's own argument, which is kept under no other name.
        autocast=variable._autocast,
    )
    # Private: the constructor takes no path, and by the path masks and reports know a variable.
    twin._path = variable.path
    twin.regularizer, twin.constraint = variable.regularizer, variable.constraint
    return twin
