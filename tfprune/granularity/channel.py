"""Whole channels, of which a group keeps at least some, and a multiple of some."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np

from tfprune.granularity.base import Granularity, Prunes

RoundTo: TypeAlias = int | Literal["auto"]
"""How many channels a group keeps a multiple of; `"auto"` chooses by the size of the group."""

_STEPS = ((16, 8), (8, 4))
"""From how many channels on in which steps: a width between two of them takes about as long as the next."""


@dataclass(frozen=True)
class Channel(Granularity):
    """Prune whole channels.

    Attributes:
        min_channels: How many channels always stay.
        round_to: Keep a multiple of this many channels, rounding up so that never more go than asked for. Kernels
            compute 4, 8 or 16 at a time, so between two such widths latency hardly falls. `"auto"` is 8 for groups of
            at least 16 channels, 4 for those of at least 8, and leaves the counts of narrower ones exact.

    Example:

    >>> Channel().mask(np.array([0.3, 0.1, 0.2, 0.1]), sparsity=0.5)
    array([ True, False,  True, False])
    """

    prunes: ClassVar[Prunes] = "channels"

    min_channels: int = 1
    round_to: RoundTo = 1

    def __post_init__(self) -> None:
        if self.min_channels < 1:
            raise ValueError(
                f"min_channels must be at least 1, or a layer would vanish. Received: {self.min_channels}."
            )
        if self.round_to != "auto" and (isinstance(self.round_to, str) or self.round_to < 1):
            raise ValueError(
                f'round_to must be at least 1, which does not round, or "auto". Received: {self.round_to!r}.'
            )

    def units(self, scores: np.ndarray, axis: int = -2) -> np.ndarray:
        """Return the scores as they are, one per channel: every channel is a unit."""
        return scores

    def count(self, size: int, sparsity: float) -> int:
        """Return how many of `size` channels go: `size * sparsity` rounded down, as the papers do.

        Args:
            size: The number of channels.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            The number of channels to prune; `min_channels` always stay.
        """
        return self.allow(size, super().count(size, sparsity))

    def allow(self, size: int, wanted: int) -> int:
        """Return how many of `size` channels go when `wanted` should, by `min_channels` and `round_to`.

        Args:
            size: The number of channels.
            wanted: How many should go.

        Returns:
            How many go, at most `wanted`.

        Example:

        >>> Channel(round_to=8).allow(size=32, wanted=13)
        8
        >>> [size - Channel(round_to="auto").allow(size, size // 3) for size in (64, 16, 8, 6)]
        [48, 16, 8, 4]
        """
        keep = max(size - wanted, self.min_channels)
        keep = math.ceil(keep / self._step(size)) * self._step(size)
        return max(0, size - keep)

    def _step(self, size: int) -> int:
        if self.round_to == "auto":
            return next((step for least, step in _STEPS if size >= least), 1)
        return self.round_to
