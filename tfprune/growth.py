"""Rewiring a sparse layer: drop some connections and grow as many others, the common step of SET, RigL and GraNet."""

from typing import NamedTuple

import numpy as np

from tfprune.granularity import floor_share, prune_lowest


class Rewiring(NamedTuple):
    """What `drop_and_grow` did.

    Attributes:
        kept: True for the weights that were live and were not dropped.
        mask: True for the weights that are live now: `kept` and the grown ones. A weight that was dropped and grew
            back at once was live before and is live now, so RigL lets it keep its value.
    """

    kept: np.ndarray
    mask: np.ndarray


def drop_and_grow(mask: np.ndarray, importance: np.ndarray, gain: np.ndarray, count: int) -> Rewiring:
    """Drop the `count` least important live weights, then grow the `count` of highest gain among all others.

    The number of live weights does not change. A weight that was just dropped may grow back at once. Of equal
    importances the later weight goes; of equal gains the earlier position grows.

    Reference: Evci et al., Rigging the Lottery, ICML 2020, https://arxiv.org/abs/1911.11134

    Args:
        mask: Which weights live, a bool per weight.
        importance: Scores of the same shape, higher means keep: |weight| in RigL. Only live weights' count.
        gain: Scores of the same shape: |dense gradient| in RigL, random numbers in SET.
        count: How many to drop and to grow, 0 <= count <= mask.sum().

    Returns:
        A `Rewiring`.

    Raises:
        ValueError: If shapes differ, a score that is needed is not finite, or `count` is out of range.

    Example:

    >>> mask = np.array([True, True, True, False, False])
    >>> weights, gradient = np.array([0.9, 0.1, 0.5, 0.0, 0.0]), np.array([0.0, 0.2, 0.0, 0.3, 0.1])
    >>> drop_and_grow(mask, np.abs(weights), np.abs(gradient), count=1).mask
    array([ True, False,  True,  True, False])
    """
    _check_shapes(mask, importance=importance, gain=gain)
    live = importance[mask]
    _check_finite(live, "importance", "live weights")
    if not 0 <= count <= live.size:
        raise ValueError(f"count must be between 0 and the number of live weights, {live.size}. Received: {count}.")
    kept = mask.copy()
    kept[mask] = prune_lowest(live, count)
    return Rewiring(kept, grow(kept, gain, count))


def grow(kept: np.ndarray, gain: np.ndarray, count: int) -> np.ndarray:
    """Return `kept` plus the `count` positions of highest gain outside it; of equal gains the earlier grows.

    Args:
        kept: Which weights live, a bool per weight.
        gain: Scores of the same shape. Only those outside `kept` count.
        count: How many grow, at most the number of positions outside `kept`.

    Returns:
        The new mask.

    Raises:
        ValueError: If shapes differ, a gain outside `kept` is not finite, or `count` is out of range.

    Example:

    >>> grow(np.array([True, False, False]), np.array([9.0, 1.0, 2.0]), count=1)
    array([ True, False,  True])
    """
    _check_shapes(kept, gain=gain)
    outside = ~kept
    gains = gain[outside]
    _check_finite(gains, "gain", "positions outside kept")
    if not 0 <= count <= gains.size:
        raise ValueError(f"count must be between 0 and the {gains.size} positions outside kept. Received: {count}.")
    mask = kept.copy()
    mask[outside] = prune_lowest(gains, gains.size - count)
    return mask


def drop_by_sign(weights: np.ndarray, mask: np.ndarray, fraction: float) -> np.ndarray:
    """Return the live weights that SET keeps: of each sign the `fraction` nearest to zero goes, and every exact zero.

    Signs are counted apart, so a layer keeps its balance of positive and negative weights. Of equal weights the
    later one goes. Each number is rounded down.

    Reference: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity,
    Nature Communications 2018, https://arxiv.org/abs/1707.04780

    Args:
        weights: The kernel.
        mask: Which weights live, a bool per weight.
        fraction: The fraction to drop, in [0, 1]; SET's zeta, 0.3 in the paper.

    Returns:
        True for the weights that stay.

    Raises:
        ValueError: If shapes differ, a live weight is not finite, or `fraction` is out of range.

    Example:

    >>> drop_by_sign(np.array([0.1, 0.5, 0.0, -0.3, -0.2]), np.ones(5, bool), fraction=0.5)
    array([False,  True, False,  True, False])
    """
    _check_shapes(mask, weights=weights)
    _check_finite(weights[mask], "weights", "live weights")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1]. Received: {fraction}.")
    kept = np.zeros_like(mask)
    for signed in (weights, -weights):
        side = mask & (signed > 0)
        magnitudes = signed[side]
        kept[side] = prune_lowest(magnitudes, floor_share(magnitudes.size, fraction))
    return kept


def _check_shapes(mask: np.ndarray, **arrays: np.ndarray) -> None:
    if mask.dtype != bool:
        raise ValueError(f"A mask must be of dtype bool. Received: {mask.dtype}. Convert it with mask.astype(bool).")
    for name, array in arrays.items():
        if array.shape != mask.shape:
            raise ValueError(f"{name} must have the shape of the mask, {mask.shape}. Received: {array.shape}.")


def _check_finite(values: np.ndarray, name: str, where: str) -> None:
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(
            f"{name} is NaN or infinite at {bad} of the {values.size} {where}, so they cannot be ranked. "
            "Training has probably diverged: lower the learning rate or clip gradients (clipnorm=1.0)."
        )
