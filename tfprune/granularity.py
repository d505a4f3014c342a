"""What is pruned together, and how many: from scores to a mask with an exact count."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Channel:
    """Prune whole channels.

    Attributes:
        min_channels: How many channels always stay.
        round_to: Keep a multiple of this many channels, rounding up so that never more go than asked for. Phones
            compute 8 at a time, so 8 is a good value there.

    Example:

    >>> Channel().mask(np.array([0.3, 0.1, 0.2, 0.1]), sparsity=0.5)
    array([ True, False,  True, False])
    """

    min_channels: int = 1
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.min_channels < 1:
            raise ValueError(
                f"min_channels must be at least 1, or a layer would vanish. Received: {self.min_channels}."
            )
        if self.round_to < 1:
            raise ValueError(f"round_to must be at least 1, which does not round. Received: {self.round_to}.")

    def count(self, size: int, sparsity: float) -> int:
        """Return how many of `size` channels go: `size * sparsity` rounded down, as the papers do.

        Args:
            size: The number of channels.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            The number of channels to prune; `min_channels` always stay.
        """
        # 0.29 * 100 is 28.999999999999996: round away the error of the product before rounding down.
        return self.allow(size, math.floor(round(size * sparsity, 9)))

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
        """
        keep = max(size - wanted, self.min_channels)
        keep = math.ceil(keep / self.round_to) * self.round_to
        return max(0, size - keep)

    def mask(self, scores: np.ndarray, sparsity: float) -> np.ndarray:
        """Return which channels stay: all but the `count` lowest scores, the later one going first in a tie.

        Args:
            scores: One score per channel; higher means keep.
            sparsity: The fraction to prune, in [0, 1).

        Returns:
            One bool per channel, True for those that stay.

        Raises:
            ValueError: If a score is NaN.
        """
        return prune_lowest(scores, self.count(len(scores), sparsity))


def prune_lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return a mask that is False for exactly the `count` lowest scores; of equal scores the later one goes.

    Args:
        scores: Scores of any shape.
        count: How many to prune, 0 <= count <= scores.size.

    Returns:
        A bool array of the same shape.

    Raises:
        ValueError: If a score is NaN, which has no rank.

    Example:

    >>> prune_lowest(np.array([2.0, 1.0, 1.0]), 1)
    array([ True,  True, False])
    """
    if np.isnan(scores).any():
        raise ValueError(
            "Some scores are NaN, so the channels cannot be ranked. "
            "The weights are probably NaN: lower the learning rate or clip gradients (clipnorm=1.0)."
        )
    flat = scores.ravel()
    mask = np.ones(flat.size, bool)
    latest_first = flat.size - 1 - np.argsort(flat[::-1], kind="stable")
    mask[latest_first[:count]] = False
    return mask.reshape(scores.shape)
