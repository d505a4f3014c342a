"""What a copy of a model does differently from the model: calls that are scaled, or left out."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras


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

Edits = Mapping[int, Edit]
"""For calls (by `tfprune.graph.Node.key`), what changes about them."""
