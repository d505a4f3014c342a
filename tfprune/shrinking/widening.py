"""The same architecture with other widths: a width multiplier for any model."""

import math
import numbers
from collections.abc import Callable

import keras
import numpy as np

from tfprune.graph import Analysis, analyse
from tfprune.graph.channel_costs import layer_macs, layer_terms, parameter_terms, total_cost
from tfprune.graph.profiling import profile
from tfprune.graph.record import Binding
from tfprune.rewriting.cloning import rebuild_anew
from tfprune.shrinking.one_shot import Budget

LARGEST = 2.0**10
"""No budget is searched for beyond this multiplier."""


def widen(model: keras.Model, multiplier: float | Budget) -> keras.Model:
    """Make a model of the same architecture in which every free channel group is so many times as wide.

    The second half of MorphNet: train with `tfprune.callbacks.MorphNet`, `shrink`, then widen what is left to the
    budget and train it anew. A multiplier below 1 is the classic way to a smaller network.

    Groups grow as a whole, so layers tied by a residual addition stay tied; depthwise layers, BatchNormalization and
    whatever reads the channels follow. Frozen groups keep their width: `print(tfprune.channel_groups(model))` shows
    which, and why. The weights are new and random, drawn by each layer's own initializer; nothing that the model has
    learned is kept, except what preprocessing layers learned in `adapt`. The model itself is not changed.

    Reference: Gordon et al., MorphNet: Fast & Simple Resource-Constrained Structure Learning of Deep Networks,
    CVPR 2018, https://arxiv.org/abs/1711.06798

    Args:
        model: A built Keras model that `tfprune.channel_groups` can read.
        multiplier: By how much to multiply every width, above 0; widths are rounded up. Or a `tfprune.Budget`: the
            largest multiplier that stays within it is searched for; a fraction below 1 is relative to this model.

    Returns:
        A new, plain Keras model, compiled like the model. A subclassed model comes back as a functional one.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `multiplier` is neither a number nor a budget.
        ValueError: If the multiplier is not above 0, no group is free, or the budget is out of reach.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10)])
    >>> widen(model, 1.5).get_layer("conv").filters
    8
    >>> widen(model, tfprune.Budget(parameters=1000)).get_layer("conv").filters
    26
    """
    _check(multiplier)
    analysis = analyse(model)
    if not analysis.groups.free:
        raise ValueError(f"No channel of {model.name!r} is free, so no width can change.\n{analysis.groups}")
    if isinstance(multiplier, Budget):
        return _largest_within(model, analysis, multiplier)
    return rebuild_anew(model, analysis, _counts(analysis, multiplier))


def _check(multiplier: float | Budget) -> None:
    if isinstance(multiplier, Budget):
        multiplier.check_counted()
        return
    if isinstance(multiplier, bool) or not isinstance(multiplier, numbers.Real):
        raise TypeError(f"multiplier must be a number or a tfprune.Budget. Received: {multiplier!r}.")
    if not 0 < multiplier < float("inf"):
        raise ValueError(f"multiplier must be a number above 0, such as 1.5. Received: {multiplier!r}.")


def _counts(analysis: Analysis, multiplier: float) -> np.ndarray:
    """How many channels take the place of each; evenly spread, so that the parts of a split keep their proportions."""
    of_label = np.ones(analysis.trace.num_channels, int)
    for group in analysis.groups.free:
        width = math.ceil(round(group.size * multiplier, 9))
        ends = np.arange(group.size + 1) * width // group.size
        counts = np.diff(ends)
        for member in group.members:  # each variable keeps a slice
            if not counts[member.channels].any():
                counts[member.channels[0]] = 1
        of_label[group.labels] = counts
    gone = np.flatnonzero(of_label == 0)
    of_label[np.setdiff1d(gone, analysis.spare(gone))] = 1  # each part of a split keeps a channel
    return of_label[analysis.labels]


def _largest_within(model: keras.Model, analysis: Analysis, budget: Budget) -> keras.Model:
    estimates = _estimates(model, analysis, budget)
    exact = {name: size(np.ones(analysis.trace.num_channels)) for name, size in estimates.items()}
    limits = {name: limit * exact[name] if limit < 1 else limit for name, limit in budget.limits().items()}

    def fits(multiplier: float) -> bool:
        counts = _counts(analysis, multiplier)
        return all(estimates[name](counts) <= limit + 1e-6 for name, limit in limits.items())

    widest = max(group.size for group in analysis.groups.free)
    low, high = 0.0, 1.0
    while fits(high):
        low, high = high, high * 2
        if high > LARGEST:
            raise ValueError(f"{budget} allows more than {LARGEST:g} times the width of {model.name!r}. Lower it.")
    # Beyond this step no width changes; the smallest model has one channel in each group.
    while high - low > 0.5 / widest / max(high, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    for multiplier in (low, *(low * share for share in (0.99, 0.95, 0.9, 0.8))):  # attention is estimated
        if multiplier > 0:
            wide = rebuild_anew(model, analysis, _counts(analysis, multiplier))
            found = _sizes(wide, limits)
            if all(found[name] <= limit + 1e-6 for name, limit in limits.items()):
                return wide
    smallest = {name: f"{size(_counts(analysis, 1e-9)):,.0f} of {exact[name]:,.0f}" for name, size in estimates.items()}
    raise ValueError(
        f"{budget} cannot be met by narrowing alone. The smallest that it can reach is {smallest}. Raise the budget; "
        "print(tfprune.channel_groups(model)) shows what is frozen."
    )


def _sizes(model: keras.Model, limits: dict[str, float]) -> dict[str, float]:
    parameters = model.count_params()
    sizes = {"parameters": parameters, "file_bytes": 4 * parameters}
    return {**sizes, "macs": profile(model).macs} if "macs" in limits else sizes


def _estimates(model: keras.Model, analysis: Analysis, budget: Budget) -> dict[str, Callable[[np.ndarray], float]]:
    """For each limit, the size of the model from the counts of its channels."""

    def place(binding: Binding) -> np.ndarray:
        return binding.channels

    found: dict[str, Callable[[np.ndarray], float]] = {}
    if budget.macs is not None:
        operations = layer_terms(analysis, layer_macs(analysis), place)
        found["macs"] = lambda counts: total_cost(operations, counts)
    if budget.parameters is not None or budget.file_bytes is not None:
        weights = parameter_terms(model, analysis, place)
        found["parameters"] = lambda counts: total_cost(weights, counts)
        found["file_bytes"] = lambda counts: 4 * total_cost(weights, counts)
    return {name: found[name] for name in budget.limits()}
