"""How a network's sparsity is shared out among its layers: from scores to a count of pruned units per layer."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

from tfprune.common.order_statistics import kth_lowest
from tfprune.granularity import floor_share

Distribution: TypeAlias = Callable[[Mapping[str, np.ndarray], float], dict[str, int]]
"""From scores by layer (higher means keep, +inf must stay) and a sparsity in [0, 1) to how many units of each go."""


_SMART_RATIO_OF_HEADS = 0.3


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
    layers = _measure(scores, sparsity)
    return {name: min(floor_share(layer.size, sparsity), layer.room) for name, layer in layers.items()}


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
    return _erdos_renyi(_measure(scores, sparsity), sparsity, lambda layer: layer.shape[-2:])


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
    return _erdos_renyi(_measure(scores, sparsity), sparsity, lambda layer: layer.shape)


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
    layers = _measure(scores, sparsity)
    room, size = (sum(getattr(layer, what) for layer in layers.values()) for what in ("room", "size"))
    count = floor_share(size, sparsity)
    if count > room:
        raise ValueError(
            f"A sparsity of {sparsity} means pruning {count} of {size} units, but only {room} may go, "
            f"{count - room} too few: the others are protected (+inf), or the last of their layer. "
            f"Lower the sparsity to at most {room / size:.4g}, or protect less."
        )
    if not count:
        return dict.fromkeys(layers, 0)

    def without_best() -> Iterator[np.ndarray]:
        for name, layer in layers.items():
            units = scores[name].ravel()
            yield units[: layer.best]
            yield units[layer.best + 1 :]

    sizes = [part for layer in layers.values() for part in (layer.best, layer.size - layer.best - 1)]
    counts = kth_lowest(without_best, sizes, count).counts(count)
    return {name: counts[2 * index] + counts[2 * index + 1] for index, name in enumerate(layers)}


def smart_ratio(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, int]:
    """Make a layer's density proportional to k^2 + k, k = 1 at the last layer and one more at each before it.

    Classifiers keep 30%: kernels of two axes, or in a network of nothing else the last of them. A layer whose density
    would be above 1 stays dense, and the layers after it make up for it. The order of the layers counts, and their
    scores do not: with random scores it is the authors' "random ticket", a strong baseline before training.

    Reference: Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020,
    https://arxiv.org/abs/2009.11094

    Args:
        scores: Scores by layer from the input to the output, in the shape of its kernel; higher means keep, +inf must
            stay.
        sparsity: The fraction of all units to prune, in [0, 1).

    Returns:
        How many units of each layer go: rounded down, and fewer where protected units are in the way.

    Raises:
        ValueError: If there is no layer, a layer is empty, a score is NaN, `sparsity` is out of range, or 30% of the
            classifiers is more than may stay.

    Example:

    >>> smart_ratio({"first": np.ones((3, 3, 8, 16)), "second": np.ones((3, 3, 16, 8)), "head": np.ones((8, 10))}, 0.9)
    {'first': 990, 'second': 1098, 'head': 56}
    """
    layers = _measure(scores, sparsity)
    heads = {name for name, layer in layers.items() if len(layer.shape) == 2}
    if len(heads) == len(layers):
        heads = {list(layers)[-1]}
    density = dict.fromkeys(heads, _SMART_RATIO_OF_HEADS)
    left: float = sum(layer.size - floor_share(layer.size, sparsity) for layer in layers.values())
    left -= sum(_SMART_RATIO_OF_HEADS * layers[name].size for name in heads)
    if left < 0:
        raise ValueError(
            f"smart_ratio keeps 30% of {sorted(heads)}, which is more than a sparsity of {sparsity} lets live. "
            "Lower it, leave these layers out, or use another distribution."
        )
    body = [name for name in layers if name not in heads]
    shares = {name: (len(body) - place) * (len(body) - place + 1) for place, name in enumerate(body)}
    for place, name in enumerate(body):  # what a full layer cannot take goes to those after it
        rest = sum(shares[each] * layers[each].size for each in body[place:])
        density[name] = min(1.0, left * shares[name] / rest)
        left -= density[name] * layers[name].size
    return {name: min(floor_share(layer.size, 1 - density[name]), layer.room) for name, layer in layers.items()}


class _Layer(NamedTuple):
    """What is to be known of a layer's scores: how many may go at most, and where the first of the best ones is."""

    shape: tuple[int, ...]
    size: int
    room: int
    best: int


def _measure(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, _Layer]:
    """Return what is to be known of each layer, or raise if something is wrong with the arguments."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1). Received: {sparsity}.")
    if not scores:
        raise ValueError("There is no layer to prune: scores is empty. Pass the scores of at least one layer.")
    layers = {}
    for name, array in scores.items():
        if not array.size:
            raise ValueError(f"Layer {name!r} has no units to prune: its scores have the shape {array.shape}.")
        best = int(array.argmax())  # of a NaN, if there is one
        highest = array.flat[best]
        if np.isnan(highest):
            raise ValueError(
                f"Some scores of layer {name!r} are NaN, so its units cannot be ranked. "
                "The weights are probably NaN: lower the learning rate or clip gradients (clipnorm=1.0)."
            )
        free = array.size if highest < np.inf else int(np.count_nonzero(array < np.inf))
        layers[name] = _Layer(array.shape, array.size, min(free, array.size - 1), best)
    return layers


def _erdos_renyi(
    layers: Mapping[str, _Layer], sparsity: float, shape_of: Callable[[_Layer], tuple[int, ...]]
) -> dict[str, int]:
    """Solve for the factor of the densities; each round makes the layers dense that would be the densest above 1."""
    sizes = {name: layer.size for name, layer in layers.items()}
    shapes = {name: tuple(shape_of(layer)) for name, layer in layers.items()}
    padded = {name: (1,) * (2 - len(shape)) + shape for name, shape in shapes.items()}
    raw = {name: sum(shape) / np.prod(shape, dtype=float) for name, shape in padded.items()}
    live = sum(size - floor_share(size, sparsity) for size in sizes.values())
    density = dict.fromkeys(layers, 1.0)
    while raw:
        left = live - sum(size for name, size in sizes.items() if name not in raw)
        factor = left / sum(raw[name] * sizes[name] for name in raw)
        highest = max(raw.values())
        if factor * highest <= 1:
            density |= {name: factor * share for name, share in raw.items()}
            break
        raw = {name: share for name, share in raw.items() if share < highest}
    return {name: min(floor_share(size, 1 - density[name]), layers[name].room) for name, size in sizes.items()}
