"""Redundancy by the geometric median: filters in the middle of the others can be replaced by them."""

import numpy as np

from tfprune.criteria.norms import channels_as_rows


def geometric_median_distance(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Score each channel by the sum of its Euclidean distances to all channels.

    The channel with the smallest sum is nearest to the geometric median of all, so the others can best stand in
    for it. The distances come from one matrix product: |a - b|^2 = |a|^2 + |b|^2 - 2ab, on centred float64
    weights so that near-duplicates do not drown in rounding.

    Reference: He et al., Filter Pruning via Geometric Median, CVPR 2019, https://arxiv.org/abs/1811.00250

    Args:
        weights: A kernel of any shape and float dtype, such as (height, width, input channels, filters).
        axis: The axis of the channels. The last one holds the filters of a Keras kernel.

    Returns:
        One float64 score per channel, shape (weights.shape[axis],).

    Example:

    >>> geometric_median_distance(np.array([[0.0, 3.0, 0.0], [0.0, 4.0, 1.0]]))
    array([6.        , 9.24264069, 5.24264069])
    """
    rows = channels_as_rows(weights, axis)
    rows -= rows.mean(axis=0)
    squares = np.einsum("ij,ij->i", rows, rows)
    distances = rows @ rows.T
    distances *= -2.0
    distances += squares
    distances += squares[:, None]
    np.fill_diagonal(distances, 0.0)
    np.maximum(distances, 0.0, out=distances)
    return np.sqrt(distances, out=distances).sum(axis=1)
