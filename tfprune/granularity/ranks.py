"""Exact counts: how many a share is, and which are the lowest."""

import math

import numpy as np

from tfprune.common.order_statistics import drop_last_ties, kth_lowest


def floor_share(size: int, fraction: float) -> int:
    """Return `size * fraction` rounded down, as the papers do.

    Args:
        size: How many there are.
        fraction: The part of them, in [0, 1].

    Returns:
        The number that the part is.

    Example:

    >>> floor_share(100, 0.29)  # although 100 * 0.29 is 28.999999999999996
    29
    """
    return math.floor(round(size * fraction, 9))


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
    refuse_nan(scores)
    if count == 0:
        return np.ones(scores.shape, bool)
    flat = scores.ravel()
    found = kth_lowest(lambda: [flat], [flat.size], count)
    mask = flat >= found.value
    drop_last_ties(mask, flat, found.value, count - found.below[0])
    return mask.reshape(scores.shape)


def refuse_nan(scores: np.ndarray) -> None:
    """Raise a ValueError if a score is NaN."""
    if scores.size and np.isnan(scores.max()):  # the largest of numbers with a NaN among them is NaN
        raise ValueError(
            "Some scores are NaN, so they cannot be ranked. "
            "The weights are probably NaN: lower the learning rate or clip gradients (clipnorm=1.0)."
        )
