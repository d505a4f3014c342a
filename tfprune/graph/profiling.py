"""What a model is made of: parameters, nonzeros and multiply-accumulates, layer by layer."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.graph.costs import fixed_shape, multiply_accumulates
from tfprune.graph.rules import find_rule
from tfprune.graph.walk import nested, walk
from tfprune.graph.wrapped import model_for_each_step


@dataclass(frozen=True)
class LayerProfile:
    """One row of a profile.

    Attributes:
        name: The layer's name; in a nested model, with the models' names before it.
        kind: The layer's class.
        output_shape: The shape that comes out of its first call, without the batch axis.
        parameters: How many weights it has, trainable or not.
        nonzeros: How many of them are not exactly zero.
        macs: Multiply-accumulate operations for one sample, over all its calls.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    parameters: int
    nonzeros: int
    macs: int


@dataclass(frozen=True)
class Profile(Report):
    """The layers of a model and their sums; printed as a table.

    Attributes:
        model: The model's name.
        layers: One row per layer with weights or operations.
    """

    model: str
    layers: tuple[LayerProfile, ...]

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def nonzeros(self) -> int:
        """Weights of the whole model that are not exactly zero."""
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of the whole model for one sample."""
        return sum(layer.macs for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and the sums."""
        totals = {"parameters": self.parameters, "nonzeros": self.nonzeros, "macs": self.macs}
        return {**super().to_dict(), **totals}

    def to_table(self) -> Table:
        """Return one row per layer that has weights or costs operations, and the sum."""
        table = new_table(f"Profile of {self.model}", ["layer", "kind"], ["output", "parameters", "nonzeros", "MACs"])
        for layer in self.layers:
            if layer.parameters or layer.macs:
                shape = " x ".join(str(size) for size in layer.output_shape)
                counts = (layer.parameters, layer.nonzeros, layer.macs)
                table.add_row(layer.name, layer.kind, shape, *(f"{count:,}" for count in counts))
        table.add_section()
        table.add_row("total", "", "", *(f"{n:,}" for n in (self.parameters, self.nonzeros, self.macs)))
        return table


def profile(model: keras.Model) -> Profile:
    """Count parameters, nonzeros and multiply-accumulate operations (MACs) of every layer.

    A shared layer counts its weights once and its operations for every call. MACs are those of convolutions, dense,
    recurrent and attention layers for one sample; additions, activations and normalization (which folds into the
    layer before it on the phone) count as zero, and so do layers of your own and `keras.ops`.

    Args:
        model: A built Sequential, functional or subclassed Keras model with a fixed input shape.

    Returns:
        One row per layer and the sums; printing it shows a table.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, cannot be read layer by layer, or its spatial shape is not fixed.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> result = profile(model)
    >>> result.parameters, result.macs
    (15, 12)
    """
    rows: dict[int, LayerProfile] = {}
    _add_rows(model, "", rows)
    return Profile(model.name, tuple(rows.values()))


def _add_rows(model: keras.Model, prefix: str, rows: dict[int, LayerProfile], times: int = 1) -> None:
    for node in walk(model):
        layer = node.operation
        inner = nested(node, own_sizes=True)
        if inner is not None:
            _add_rows(inner, f"{prefix}{layer.name}/", rows, times)
            continue
        stepped = model_for_each_step(node)
        if stepped is not None and find_rule(stepped[0]) is None:
            steps = fixed_shape(node, node.input_shapes[0])[0]
            _add_rows(stepped[1], f"{prefix}{layer.name}/", rows, times * steps)
            continue
        earlier = rows.get(id(layer))
        macs = times * multiply_accumulates(node) + (earlier.macs if earlier else 0)
        weights = [weight.numpy() for weight in getattr(layer, "weights", [])]
        rows[id(layer)] = LayerProfile(
            prefix + layer.name,
            type(layer).__name__,
            tuple(node.output_shapes[0]),
            sum(weight.size for weight in weights),
            sum(int(np.count_nonzero(weight)) for weight in weights),
            macs,
        )
