"""What is added to the output of a layer: it can make up for what the other summands lack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfprune.graph.kinds import exact_kind
from tfprune.graph.wiring import is_addition
from tfprune.reconstruction.playback import Batches, Moment, array_of
from tfprune.reconstruction.readings import Reading

if TYPE_CHECKING:
    from tfprune.reconstruction.targets import Target

PASSED = (keras.layers.Dropout, keras.layers.Identity, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D)
"""What changes nothing at inference."""


@dataclass(frozen=True)
class Shortcut:
    """The other summands of the addition behind a layer, all of which are known before the layer is called.

    Attributes:
        reading: The layer.
        norm: The BatchNormalization between the layer and the addition, if there is one.
        others: The values of the other summands.
    """

    reading: Reading
    norm: Any
    others: list[Batches]

    @classmethod
    def of(cls, moment: Moment, reading: Reading) -> "Shortcut | None":
        """Return the shortcut of a layer that is about to be called; `None` if nothing, or nothing yet, is added."""
        if exact_kind(moment.node.operation).activation_of(moment.node.operation) is not keras.activations.linear:
            return None
        tensor, norm = moment.node.outputs[0], following_norm(moment)
        reader = moment.reader(tensor)
        while reader is not None and (reader.operation is norm or type(reader.operation) in PASSED):
            tensor = reader.outputs[0]
            reader = moment.reader(tensor)
        if reader is None or not is_addition(reader.operation):
            return None
        others = [other for other in reader.inputs if other is not tensor]
        known = all(id(other) in moment.values and other.shape == tensor.shape for other in others)
        if not others or len(others) != len(reader.inputs) - 1 or not known:  # none where a number is added
            return None
        return cls(reading, norm, [moment.values[id(other)] for other in others])

    def at(self, where: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Return the sum of the other summands at some positions of each batch."""
        return [
            np.sum([self.reading.values(array_of(other[index]), places) for other in self.others], axis=0)
            for index, places in enumerate(where)
        ]

    def aim(self, target: "Target") -> None:
        """Add to the targets of a layer what this shortcut lacks of that of the larger model."""
        assert target.shortcut is not None
        present = self.at(target.where)
        for outputs, wanted, there in zip(target.outputs, target.shortcut, present, strict=True):
            outputs += (wanted - there) * target.unscaled


def following_norm(moment: Moment) -> Any:
    """Return the BatchNormalization that alone reads what a call makes, or `None`."""
    reader = moment.reader(moment.node.outputs[0])
    return reader.operation if reader is not None and is_norm(reader.operation) else None


def is_norm(operation: Any) -> bool:
    """Return whether this is a BatchNormalization; a subclass may compute something else."""
    return type(operation) is keras.layers.BatchNormalization


def unscaled(norm: Any, size: int) -> np.ndarray:
    """Return what a difference behind a normalization is before it, per channel; 0 where it lets nothing through."""
    if norm is None:
        return np.ones(size)
    deviation = np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    gamma = np.ones(size) if norm.gamma is None else norm.gamma.numpy().astype(np.float64)
    lets_through = np.abs(gamma) > 1e-3 * np.abs(gamma).mean()
    return np.where(lets_through, deviation / np.where(lets_through, gamma, 1.0), 0.0)
