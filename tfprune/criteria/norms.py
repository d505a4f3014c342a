"""Norms of the weights that make a channel."""

import numpy as np

from tfprune.common.checks import check_not_negative
from tfprune.criteria.base import ChannelCriterion
from tfprune.criteria.views import ChannelView, MemberView


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


class Norm(ChannelCriterion):
    """Score each channel by the p-norm of the weights of each kernel that makes it.

    `Norm(1)` scores as `l1_norm` does and `Norm(2)` as `l2_norm`. `GroupNorm` is the norm over the whole group.

    Args:
        p: The order of the norm, above 0.

    Raises:
        ValueError: If `p` is not a number above 0.

    Example:

    >>> kernel = MemberView("kernel", lambda: np.array([[3.0, -1.0], [4.0, 0.0]]), "producer", None, 1, np.arange(2))
    >>> [scores.tolist() for _, scores in Norm(2).score(ChannelView("hidden", 2, (kernel,)))]
    [[5.0, 1.0]]
    """

    def __init__(self, p: float = 2.0) -> None:
        self.p = check_order(p)

    def score(self, view: ChannelView) -> list[tuple[MemberView, np.ndarray]]:
        """Return the norms of each kernel that makes the channels."""
        return [(member, _norms(np.abs(member.rows), self.p)) for member in view.with_role("producer")]


def check_order(p: float) -> float:
    """Return the order of a norm, or raise if it is none.

    Raises:
        ValueError: If `p` is not a number above 0.
    """
    if check_not_negative("p", p) == 0:
        raise ValueError("p must be above 0, such as 2 for the Euclidean norm. Received: 0.")
    return float(p)


def _norms(rows: np.ndarray, p: float) -> np.ndarray:
    largest = rows.max(axis=1, initial=0.0)
    relative = np.divide(rows, largest[:, None], out=np.zeros_like(rows), where=largest[:, None] > 0)  # no overflow
    return largest * (relative**p).sum(axis=1) ** (1 / p)


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
