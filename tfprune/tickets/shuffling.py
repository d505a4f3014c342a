"""Random masks as the control of a ticket: as many weights of every layer, at other places."""

from collections.abc import Mapping

import numpy as np

from tfprune.training.masks import Masks


def shuffled(masks: Mapping[str, np.ndarray], seed: int = 0) -> Masks:
    """Return masks that keep as many weights of every layer, at random places: the control of a ticket.

    What a ticket is worth beyond how many weights each layer has left shows in the comparison. Positions are shuffled
    one by one, so whole channels and patterns do not survive.

    Reference: Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020,
    https://arxiv.org/abs/2009.11094

    Args:
        masks: For each variable path a bool array, False where weights are pruned.
        seed: Makes the choice repeatable, for masks in the same order.

    Returns:
        New masks of the same paths and shapes.

    Raises:
        ValueError: If a mask is not of dtype bool.

    Example:

    >>> mask = shuffled({"kernel": np.array([[True, False], [True, True]])}, seed=1)["kernel"]
    >>> mask.shape, int(mask.sum())
    ((2, 2), 3)
    """
    for path, mask in masks.items():
        if mask.dtype != bool:
            raise ValueError(f"The mask of {path!r} must be of dtype bool. Received: {mask.dtype}.")
    return {
        path: np.random.default_rng([seed, index]).permutation(mask.ravel()).reshape(mask.shape)
        for index, (path, mask) in enumerate(masks.items())
    }
