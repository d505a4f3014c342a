"""Layers made anew from their configs, with the layer itself at hand."""

from typing import Any

import keras

from tfprune.graph.chains import chains
from tfprune.graph.subclassed import first_line


def made_from_config(layer: keras.layers.Layer, config: dict[str, Any]) -> Any:
    """Make a layer of the same class from its edited config.

    Classes and functions that are not registered with Keras are taken from the layer.

    Args:
        layer: The layer, or an operation.
        config: What its `get_config` returns, perhaps with other sizes or data types.

    Returns:
        The new layer.

    Raises:
        ValueError: If the config is not one that its constructor takes.

    Example:

    >>> def halved(x):
    ...     return x / 2
    >>> layer = keras.layers.Dense(4, activation=halved)
    >>> made_from_config(layer, {**layer.get_config(), "units": 2}).activation is halved
    True
    """
    if isinstance(layer, keras.layers.Lambda):
        # Its from_config refuses a Python lambda, as it might come from a stranger's file. This one is the user's own.
        named = {key: config[key] for key in ("name", "trainable", "dtype")}
        options = {"mask": layer.mask, "arguments": layer.arguments}
        # Private: the output shape as it was given, of which get_config() has the code alone.
        return keras.layers.Lambda(layer.function, output_shape=layer._output_shape, **options, **named)
    try:
        with keras.saving.custom_object_scope(_custom_objects(layer)):
            return type(layer).from_config(_with_functions(layer, config))
    except Exception as error:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be made anew from its config "
            f"({first_line(error).rstrip('.')}). Its get_config() has to return what its __init__ takes."
        ) from error


def _with_functions(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A config, also of the layers in a wrapper, with functions of the user's in the place of what stands for them."""
    changed, own = dict(config), layer.get_config()
    for key, value in config.items():
        held = getattr(layer, key, None)
        if (_is_function(held) or _is_another(held)) and value == own.get(key):  # not given another one
            changed[key] = held
        elif isinstance(held, keras.layers.Layer) and isinstance(value, dict) and isinstance(value.get("config"), dict):
            changed[key] = {**value, "config": _with_functions(held, value["config"])}
    return changed


def _is_function(value: Any) -> bool:
    """Whether an attribute is a function of the user's, such as an activation; Keras knows its own by name."""
    return callable(value) and hasattr(value, "__name__") and not str(value.__module__).startswith("keras.")


def _is_another(value: Any) -> bool:
    """Whether Keras knows another function by the name of this one: `keras.ops.gelu` is an approximation by default."""
    name = getattr(value, "__name__", None)
    return callable(value) and name is not None and value is not getattr(keras.activations, name, value)


def _custom_objects(layer: Any) -> dict[str, Any]:
    """The user's classes and functions in a layer and the layers inside it, by the names that configs have for them."""
    found: dict[str, Any] = {}
    inside = chains(layer) if isinstance(layer, keras.layers.Layer) else ()
    for each in (layer, *(chain[-1] for chain in inside)):
        for value in (each, *vars(each).values()):
            if _is_function(value):
                found[value.__name__] = value
            elif not type(value).__module__.startswith(("keras.", "builtins")):
                found[type(value).__name__] = type(value)
    return found
