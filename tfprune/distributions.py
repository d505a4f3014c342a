"""How a network's sparsity is shared out among its layers: from scores to a count of pruned units per layer."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from tfprune.granularity import floor_share, prune_lowest

Distribution: TypeAlias = Callable[[Mapping[str, np.ndarray], float], dict[str, int]]
"""From scores by layer (higher means keep, +inf must stay) and a sparsity in [0, 1) to how many units of each go."""


def uniform(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Prune the same fraction of every layer, rounded down; protected units and one unit of a layer always stay.

    Args:
        scores: Scores of any shape by layer; higher means keep, +inf must stay.
        sparsity: The fraction to prune, in [0, 1).

    Returns:
        How many units of each layer go.

    Raises:
        ValueError: If there is no layer, a layer is empty, a score is NaN, or `sparsity` is out of range.

    Example:

    >>> uniform({"a": np.ones(10), "b": np.ones((3, 5))}, 0.5)
    {'a': 5, 'b': 7}
    """
    room = _room(scores, sparsity)
    return {name: min(floor_share(array.size, sparsity), room[name]) for name, array in scores.items()}


def erdos_renyi(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Make a layer's density proportional to (inputs + outputs) / (inputs * outputs): small layers stay denser.

    The last two axes count. A layer whose density would be above 1 stays dense, and the others make up for it.

    Reference: Mocanu et al., Nature Communications 2018, https://arxiv.org/abs/1707.04780; that the density is
    solved for a given sparsity is from Evci et al., Rigging the Lottery, ICML 2020.

    Args:
        scores: Scores by layer, in the shape of its kernel; higher means keep, +inf must stay.
        sparsity: The fraction of all units to prune, in [0, 1).

    Returns:
        How many units of each layer go: rounded down, and fewer where protected units are in the way.

    Raises:
        ValueError: If there is no layer, a layer is empty, a score is NaN, or `sparsity` is out of range.

    Example:

    >>> erdos_renyi({"wide": np.ones((100, 100)), "narrow": np.ones((100, 10))}, 0.5)
    {'wide': 5500, 'narrow': 0}
    """
    return _erdos_renyi(scores, sparsity, {name: array.shape[-2:] for name, array in scores.items()})


def erdos_renyi_kernel(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Make a layer's density proportional to the sum of its kernel's dimensions over their product (ERK).

    For a Dense kernel this is `erdos_renyi`; of a convolution the height and width count too.

    Reference: Evci et al., Rigging the Lottery, ICML 2020, https://arxiv.org/abs/1911.11134

    Args:
        scores: Scores by layer, in the shape of its kernel; higher means keep, +inf must stay.
        sparsity: The fraction of all units to prune, in [0, 1).

    Returns:
        How many units of each layer go: rounded down, and fewer where protected units are in the way.

    Raises:
        ValueError: If there is no layer, a layer is empty, a score is NaN, or `sparsity` is out of range.

    Example:

    >>> erdos_renyi_kernel({"conv": np.ones((3, 3, 64, 64)), "head": np.ones((64, 10))}, 0.9)
    {'conv': 33753, 'head': 0}
    """
    return _erdos_renyi(scores, sparsity, {name: array.shape for name, array in scores.items()})


def global_(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Rank all units of all layers together: exactly `sparsity` of them all goes, rounded down.

    Of equal scores the later unit goes, by the order of the layers and then within one. The best unit of a layer
    always stays, so that none collapses; the next lowest elsewhere goes in its place.

    Args:
        scores: Scores of any shape by layer; higher means keep, +inf must stay.
        sparsity: The fraction of all units to prune, in [0, 1).

    Returns:
        How many units of each layer go.

    Raises:
        ValueError: If there is no layer, a layer is empty, a score is NaN, `sparsity` is out of range, or too many
            units must stay.

    Example:

    >>> global_({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0, 5.0, 6.0])}, 0.5)
    {'a': 1, 'b': 2}
    """
    room = sum(_room(scores, sparsity).values())
    together = np.concatenate([array.ravel() for array in scores.values()])
    together = together.astype(np.result_type(together.dtype, np.float32), copy=False)
    count = floor_share(together.size, sparsity)
    if count > room:
        raise ValueError(
            f"A sparsity of {sparsity} means pruning {count} of {together.size} units, but only {room} may go, "
            f"{count - room} too few: the others are protected (+inf), or the last of their layer. "
            f"Lower the sparsity to at most {room / together.size:.4g}, or protect less."
        )
    bounds = np.cumsum([array.size for array in scores.values()])[:-1]
    for layer in np.split(together, bounds):
        layer[layer.argmax()] = np.inf
    kept = np.split(prune_lowest(together, count), bounds)
    return {name: layer.size - int(np.count_nonzero(layer)) for name, layer in zip(scores, kept, strict=True)}


def _room(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Return how many units of each layer may go at most, or raise if something is wrong with the arguments."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1). Received: {sparsity}.")
    if not scores:
        raise ValueError("There is no layer to prune: scores is empty. Pass the scores of at least one layer.")
    for name, array in scores.items():
        if not array.size:
            raise ValueError(f"Layer {name!r} has no units to prune: its scores have the shape {array.shape}.")
        if np.isnan(array).any():
            raise ValueError(
                f"Some scores of layer {name!r} are NaN, so its units cannot be ranked. "
                "The weights are probably NaN: lower the learning rate or clip gradients (clipnorm=1.0)."
            )
    return {name: min(int(np.count_nonzero(array < np.inf)), array.size - 1) for name, array in scores.items()}


def _erdos_renyi(
    scores: Mapping[str, np.ndarray], sparsity: float, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Solve for the factor of the densities; each round makes the layers dense that would be the densest above 1."""
    room = _room(scores, sparsity)
    sizes = {name: array.size for name, array in scores.items()}
    padded = {name: (1,) * (2 - len(shape)) + tuple(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / np.prod(shape, dtype=float) for name, shape in padded.items()}
    live = sum(size - floor_share(size, sparsity) for size in sizes.values())
    density = dict.fromkeys(scores, 1.0)
    while raw:
        left = live - sum(size for name, size in sizes.items() if name not in raw)
        factor = left / sum(raw[name] * sizes[name] for name in raw)
        highest = max(raw.values())
        if factor * highest <= 1:
            density |= {name: factor * share for name, share in raw.items()}
            break
        raw = {name: share for name, share in raw.items() if share < highest}
    return {name: min(floor_share(size, 1 - density[name]), room[name]) for name, size in sizes.items()}
