"""The family of granularities: what is pruned together, and the count and the mask that all of them have."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from tfprune.granularity.ranks import floor_share, prune_lowest

Prunes = Literal["weights", "channels"]


@dataclass(frozen=True)
class Granularity(ABC):
    """What is pruned together: single weights of a kernel, blocks, some of every few, or whole channels."""

    prunes: ClassVar[Prunes] = "weights"
    """What its scores are of: of the weights of a kernel, or of channels."""

    @abstractmethod
    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the scores of the units that are pruned together.

        Args:
            scores: One score per weight; higher means keep, +inf must stay.
            axis: The kernel's input axis: -2 in Keras, -1 in transposed convolutions.

        Returns:
            One score per unit, an array of the same rank; +inf for units that must stay.
        """

    def expand(self, kept: np.ndarray, shape: tuple[int, ...], axis: int = -2) -> np.ndarray:
        """Return the mask of a kernel of this `shape` whose units are kept or not.

        Args:
            kept: One bool per unit.
            shape: The kernel's shape.
            axis: The kernel's input axis.

        Returns:
            One bool per weight, True for those that stay.
        """
        return kept

    def check_sparsity(self, sparsity: float) -> None:
        """Raise a ValueError if no kernel could have this sparsity."""
        if not 0 <= sparsity < 1:
            raise ValueError(f"sparsity must be in [0, 1). Received: {sparsity}.")

    def count(self, size: int, sparsity: float) -> int:
        """Return how many of `size` units go: `size * sparsity` rounded down, as the papers do.

        Args:
            size: The number of units.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            The number of units to prune.
        """
        return floor_share(size, sparsity)

    def mask(self, scores: np.ndarray, sparsity: float, axis: int = -2) -> np.ndarray:
        """Return what stays when the fraction `sparsity` of the units goes: `count` of the lowest, the later first.

        Args:
            scores: One score per weight (per channel for `Channel`); higher means keep, +inf must stay.
            sparsity: The fraction of units to prune, in [0, 1). Fewer go where more must stay.
            axis: The kernel's input axis: -2 in Keras, -1 in transposed convolutions.

        Returns:
            One bool per score, True for those that stay.

        Raises:
            ValueError: If a score is NaN, or `sparsity` or the kernel's shape does not fit the granularity.
        """
        self.check_sparsity(sparsity)
        units = self.units(scores, axis)
        count = min(self.count(units.size, sparsity), int(np.count_nonzero(units < np.inf)))
        return self.expand(prune_lowest(units, count), scores.shape, axis)


_FITTING: dict[Prunes, str] = {
    "weights": "single weights, so it takes Unstructured(), NofM(2, 4), Block((4, 1)) or a Granularity of your own",
    "channels": "whole channels, so it takes a Channel, such as Channel(min_channels=4, round_to=8)",
}

AnyGranularity = TypeVar("AnyGranularity", bound=Granularity)


def check_granularity(granularity: Any, kind: type[AnyGranularity], who: str) -> AnyGranularity:
    """Return a granularity, or raise if it is not of the kind that fits.

    Args:
        granularity: What was given.
        kind: The class that fits: `Channel`, or `Granularity` for those of weights.
        who: What it was given to, for the message.

    Returns:
        The granularity.

    Raises:
        TypeError: If it is something else; the message says which fit, and where this one would.

    Example:

    >>> from tfprune.granularity import Block, Channel
    >>> check_granularity(Block((4, 1)), Channel, "FPGM")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: FPGM prunes whole channels, so it takes a Channel, ... a granularity of weights, ...
    """
    if isinstance(granularity, kind) and granularity.prunes == kind.prunes:
        return granularity
    place = {"weights": "MagnitudePruning takes", "channels": "FPGM and prune_channels take"}
    other = ""
    if isinstance(granularity, Granularity):
        other = f", a granularity of {granularity.prunes}, which {place[granularity.prunes]}"
    raise TypeError(f"{who} prunes {_FITTING[kind.prunes]}. Received: {granularity!r}{other}.")
