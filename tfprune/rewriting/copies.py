"""Copies of layers, made from their configs."""

import itertools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from tfprune.graph.chains import children
from tfprune.graph.making import made_from_config
from tfprune.graph.walk import is_own
from tfprune.rewriting.object_copies import copied_object

Fill = Callable[[keras.layers.Layer, keras.layers.Layer], None]
"""Gives the copy of a layer its weights, once it is built."""


class Copies:
    """The layers of a changed copy of a model: of a shared layer one, of operations themselves.

    Args:
        rename: Whether a name that another copy has already gets a number, as layers of several models come into one.
        reserved: Names that a copy has only if it is told to.

    Attributes:
        pairs: The layers, each with its copy, in the order in which they were made.
    """

    def __init__(self, rename: bool = False, reserved: Iterable[str] = ()) -> None:
        self.pairs: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        self._rename = rename
        self._made: dict[Any, Any] = {}
        self._reserved = set(reserved)
        self._names = set(self._reserved)
        self._unset: list[Callable[[], None]] = []

    def of(self, operation: Any, **changes: Any) -> Any:
        """Return the copy of a layer.

        Args:
            operation: A layer, or an operation of `keras.ops`.
            **changes: What differs in the copy's config; a `name` is taken as it is.

        Returns:
            The copy, the same each time; its weights are set by `set_weights`.
        """
        if not isinstance(operation, keras.layers.Layer):
            return self.once(("copy", id(operation)), lambda: self._operation(operation, changes.get("name")))

        def make() -> Any:
            whole = None if changes.keys() - {"name"} else self.whole(operation, **changes)
            return self.new(operation, operation.variables, **changes) if whole is None else whole

        return self.once(("copy", id(operation)), make)

    def _operation(self, operation: Any, name: str | None) -> Any:
        """An operation itself, or another one where its name is another copy's already."""
        if operation.name not in (self._names if self._rename else self._reserved) - {name}:
            self._names.add(operation.name)
            return operation
        return type(operation).from_config({**operation.get_config(), "name": self.unused(operation.name)})

    def whole(self, layer: keras.layers.Layer, name: str | None = None) -> Any:
        """Return a copy of a layer of the user's, or one without a config, that stays as it is.

        Args:
            layer: The layer.
            name: What the copy is called; None for the layer's own name.

        Returns:
            The copy, with the same weights; `None` for layers of Keras, and those that only a config can copy.
        """
        if not is_own(layer) and _has_config(layer):
            return None
        try:
            copy = copied_object(layer)
        except Exception:  # whatever an attribute of a stranger's layer raises; its config is left to try
            return None
        copy.name = name or self.unused(layer.name)
        self.pairs.append((layer, copy))
        return copy

    def new(self, layer: keras.layers.Layer, weights: Sequence[Any], /, **changes: Any) -> Any:
        """Return another copy of a layer.

        Args:
            layer: The layer.
            weights: The values of the copy's variables: arrays or variables.
            **changes: What differs in the copy's config.

        Returns:
            The copy.
        """

        def fill(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
            for target, value in zip(copy.variables, weights, strict=True):
                target.assign(value)

        name = changes.get("name") or self.unused(layer.name)
        return self.add(layer, {**layer.get_config(), **changes, "name": name}, fill)

    def add(self, layer: keras.layers.Layer, config: dict[str, Any], fill: Fill) -> Any:
        """Return a layer of the same class from an edited config.

        Args:
            layer: The layer.
            config: Its config, perhaps with other sizes or data types.
            fill: Sets the weights; called by `set_weights`, before the copy gets what was learned in `adapt`.

        Returns:
            The new layer.
        """
        copy = made_from_config(layer, config)
        self.pairs.append((layer, copy))

        def finish() -> None:
            try:
                fill(layer, copy)
            except ValueError as error:
                raise ValueError(_unlike(layer, copy)) from error
            copy_state(layer, copy)

        self._unset.append(finish)
        return copy

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned for this key the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def unused(self, name: str) -> str:
        """Return a name that no copy has yet: this one, or one with a number if copies are renamed."""
        if not self._rename:
            return name
        numbered = (f"{name}_{count}" for count in itertools.count(1))
        free = next(each for each in itertools.chain([name], numbered) if each not in self._names)
        self._names.add(free)
        return free

    def set_weights(self) -> None:
        """Set the weights of the copies, which are built by now."""
        for finish in self._unset:
            finish()


def _has_config(layer: keras.layers.Layer) -> bool:
    try:
        layer.get_config()
    except NotImplementedError:  # Keras' own layer, given something that cannot be stored
        return False
    return True


def _unlike(layer: keras.layers.Layer, copy: keras.layers.Layer) -> str:
    held, made = ([f"{variable.name} {tuple(variable.shape)}" for variable in each.variables] for each in (layer, copy))
    return (
        f"The layer {layer.name!r} ({type(layer).__name__}) has the variables {held}, but one that is made from its "
        f"config has {made}. Its get_config() has to return all that its __init__ takes, and its build() to make all "
        "of its variables and build the layers inside it."
    )


def copy_state(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Copy what layers know beside their weights, and layers inside them too; leave other layers alone.

    Preprocessing layers learned it in `adapt`, and it is copied as Keras saves and loads it: Normalization computes
    with constants made from its variables, and a lookup layer has a vocabulary. Stateful recurrent layers have a state,
    which starts anew where the copy has another number of units.

    Args:
        layer: A layer.
        copy: A layer made from its config, and built.
    """
    for inner, twin in zip(children(layer), children(copy), strict=True):
        copy_state(inner, twin)
    for state, twin_state in zip(_recurrent_state(layer), _recurrent_state(copy), strict=True):
        if state.shape == twin_state.shape:
            twin_state.assign(state)
    if not hasattr(layer, "finalize_state"):
        return
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    copy.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)


def _recurrent_state(layer: keras.layers.Layer) -> list[Any]:
    """The state that a recurrent layer keeps between batches; Keras does not count it among the variables."""
    kept = isinstance(layer, keras.layers.RNN) and layer.stateful
    return keras.tree.flatten(layer.states) if kept else []
