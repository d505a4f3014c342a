"""What a copy of a model does differently from the model: calls that are scaled, or left out."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.graph import Node


@dataclass(frozen=True)
class Edit:
    """What changes about one call of a layer.

    Attributes:
        inputs: Positions of the inputs that stay, `None` for all. If it is one, it takes the place of the output, and
            the layer is not called.
        before: Layers to call on inputs, by position.
        after: A layer to call on the output.
    """

    inputs: tuple[int, ...] | None = None
    before: Mapping[int, keras.layers.Layer] = field(default_factory=dict)
    after: keras.layers.Layer | None = None

    @property
    def skips(self) -> bool:
        """Whether the layer is not called."""
        return self.inputs is not None and len(self.inputs) == 1

    def apply(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a layer in the edited way.

        Args:
            call: The layer; ignored where it is skipped.
            args: The positional arguments of the call.
            kwargs: Its keyword arguments.

        Returns:
            The output.
        """
        position = itertools.count()

        def fed(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            layer = self.before.get(next(position))
            return value if layer is None else layer(value)

        args, kwargs = keras.tree.map_structure(fed, (tuple(args), dict(kwargs)))
        if self.inputs is not None:
            flat = keras.tree.flatten((args, kwargs))
            tensors = [value for value in flat if isinstance(value, keras.KerasTensor)]
            kept = [tensors[index] for index in self.inputs]
            output = kept[0] if self.skips else call(kept)
        else:
            output = call(*args, **kwargs)
        return output if self.after is None else self.after(output)


PLAIN = Edit()
"""Nothing changes."""

Edits = Mapping[int, Sequence[Edit]]
"""For layers (by id), one edit for each of their calls, in the order of `tfprune.graph.wiring.Wiring.calls`."""


def in_order(calls: Mapping[int, Sequence[Node]], chosen: Mapping[int, Edit]) -> Edits:
    """Sort edits by layers.

    Args:
        calls: `Wiring.calls` of the model.
        chosen: For calls (by id of their node), the edit.

    Returns:
        The edits of the layers that have any.
    """
    by_layer = {key: [chosen.get(id(node), PLAIN) for node in nodes] for key, nodes in calls.items()}
    return {key: edits for key, edits in by_layer.items() if any(edit is not PLAIN for edit in edits)}


class EditsInTurn:
    """Hands out the edits of each layer, call by call.

    Args:
        edits: The edits; layers without any are called as they are.
    """

    def __init__(self, edits: Edits) -> None:
        self._left: dict[int, Iterator[Edit]] = {key: iter(each) for key, each in edits.items()}

    def has(self, layer: keras.layers.Layer) -> bool:
        """Return whether a layer has edits."""
        return id(layer) in self._left

    def next(self, layer: keras.layers.Layer) -> Edit:
        """Return the edit of the next call of a layer."""
        return next(self._left[id(layer)]) if self.has(layer) else PLAIN
