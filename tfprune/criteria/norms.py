"""Norms of the weights that make a channel."""

import numpy as np


def l1_norm(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Score each channel by the sum of the absolute values of its weights.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, https://arxiv.org/abs/1608.08710

    Args:
        weights: A kernel of any shape and float dtype, such as (height, width, input channels, filters).
        axis: The axis of the channels. The last one holds the filters of a Keras kernel.

    Returns:
        One float64 score per channel, shape (weights.shape[axis],).

    Example:

    >>> l1_norm(np.array([[3.0, -1.0], [4.0, 0.0]]))
    array([7., 1.])
    """
    return np.abs(channels_as_rows(weights, axis)).sum(axis=1)


def l2_norm(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Score each channel by the Euclidean norm of its weights.

    Reference: He et al., Soft Filter Pruning, IJCAI 2018, https://arxiv.org/abs/1808.06866

    Args:
        weights: A kernel of any shape and float dtype, such as (height, width, input channels, filters).
        axis: The axis of the channels. The last one holds the filters of a Keras kernel.

    Returns:
        One float64 score per channel, shape (weights.shape[axis],).

    Example:

    >>> l2_norm(np.array([[3.0, -1.0], [4.0, 0.0]]))
    array([5., 1.])
    """
    return np.linalg.norm(channels_as_rows(weights, axis), axis=1)


def channels_as_rows(weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the weights as float64 with one row per channel.

    Args:
        weights: A kernel of any shape and float dtype.
        axis: The axis of the channels.

    Returns:
        A float64 array of shape (weights.shape[axis], weights of one channel).

    Example:

    >>> channels_as_rows(np.zeros((3, 3, 8, 16), "float16"), axis=-1).shape
    (16, 72)
    """
    rows = np.moveaxis(np.asarray(weights), axis, 0)
    return rows.reshape(rows.shape[0], -1).astype(np.float64)
