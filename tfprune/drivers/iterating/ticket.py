"""A ticket: which weights are left, what they began with, and where that came from."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.files import check_expansion, write_atomically
from tfprune.training.masks import record_masks

_INDEX = "ticket"


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse subnetwork that is to be trained: a mask, the weights to begin with, and where both came from.

    Attributes:
        masks: Which weights are left, by variable path of the dense model: bool arrays, False where pruned.
        weights: What training begins with, by variable path, before masks: all weights of the dense model, with the
            statistics of BatchNormalization.
        provenance: How it was found: plain values.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="only")])
    >>> (kernel, bias) = model.weights
    >>> masks = {kernel.path: np.array([[True, False], [True, True]])}
    >>> ticket = Ticket(masks, {weight.path: weight.numpy() for weight in model.weights}, {"seed": 1})
    >>> ticket.density
    0.75
    >>> ticket.apply(model)
    >>> float(kernel.numpy()[0, 1])
    -0.0
    """

    masks: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        # Not of all arrays: interactive sessions show what `iterate` returns.
        left = f"{self.density:.4g} of {len(self.masks)} masks, {len(self.weights)} weights"
        return f"Ticket({left}, {dict(self.provenance)})"

    @property
    def density(self) -> float:
        """The fraction of weights that is left, of those that have a mask."""
        sizes = [(int(mask.sum()), mask.size) for mask in self.masks.values()]
        return sum(count for count, _ in sizes) / sum(size for _, size in sizes) if sizes else 1.0

    def apply(self, model: keras.Model, *, weights: bool = True) -> None:
        """Set the weights of a model, and prune what the mask has pruned, in place: the ticket, ready to train.

        `MagnitudePruning(0.0)` among the callbacks of a `fit` holds single weights at zero, and `tfprune.shrink`
        removes channels.

        Args:
            model: A built model of the same architecture; names of layers may differ.
            weights: Whether to set the weights; False to prune those that the model has.

        Raises:
            ValueError: If the model has other weights; it is not changed then.
        """
        twins = self._twins(model)
        if weights:
            for path, variable in twins.items():
                variable.assign(self.weights[path])
        record_masks(model, {twins[path].path: mask for path, mask in self.masks.items()})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the ticket to a file of NumPy, without pickle.

        Args:
            path: Where; ends in `.npz`.

        Returns:
            The path.

        Raises:
            OSError: If it cannot be written.
            TypeError: If the provenance has other values than JSON.
        """
        names = {"masks": list(self.masks), "weights": list(self.weights), "provenance": dict(self.provenance)}
        arrays: dict[str, Any] = {f"mask_{number}": mask for number, mask in enumerate(self.masks.values())}
        arrays |= {f"weight_{number}": weight for number, weight in enumerate(self.weights.values())}
        content = io.BytesIO()
        arrays[_INDEX] = np.array(json.dumps(names))
        np.savez_compressed(content, **arrays)
        return write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Read a ticket from a file.

        Args:
            path: A file that `save` wrote.

        Returns:
            The ticket.

        Raises:
            ValueError: If it is no such file.
        """
        check_expansion(path)
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                names = json.loads(str(file[_INDEX]))
                masks = {name: file[f"mask_{number}"] for number, name in enumerate(names["masks"])}
                weights = {name: file[f"weight_{number}"] for number, name in enumerate(names["weights"])}
                found = cls(masks, weights, names["provenance"])
        except OSError:
            raise
        except Exception as error:  # whatever a damaged archive leads to
            raise ValueError(
                f"{str(path)!r} is no ticket that Ticket.save wrote, or it is damaged: {error!r}."
            ) from error
        found._check()
        return found

    def _check(self) -> None:
        for path, mask in self.masks.items():
            if path not in self.weights or mask.dtype != bool or mask.shape != self.weights[path].shape:
                raise ValueError(f"The mask of {path!r} does not fit the weights of the ticket.")

    def _twins(self, model: keras.Model) -> dict[str, keras.Variable]:
        """The weights of a model by the paths of the ticket: by their own, or in order where names were counted up."""
        own = {variable.path: variable for variable in model.weights}
        twins = own if own.keys() == self.weights.keys() else dict(zip(self.weights, model.weights, strict=False))
        differing = [
            f"{path} {self.weights[path].shape} here, {twin.path} {tuple(twin.shape)} there"
            for path, twin in twins.items()
            if self.weights[path].shape != tuple(twin.shape) or path.split("/")[-1] != twin.path.split("/")[-1]
        ]
        if len(self.weights) != len(model.weights) or differing:
            first = f", first {differing[0]}" if differing else ""
            raise ValueError(
                f"The ticket has {len(self.weights)} weights, and {model.name!r} has {len(model.weights)} or others"
                f"{first}. Give a model of the architecture that the ticket was found in."
            )
        return twins
