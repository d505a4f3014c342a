"""The same architecture with other widths: a width multiplier for any model."""

import numbers
import warnings

import keras
import numpy as np

from tfprune.graph import Analysis, analyse
from tfprune.graph.counting import SizeCounter
from tfprune.rewriting.cloning import rebuild_anew
from tfprune.shrinking.budget import Budget, Steps, fill, load
from tfprune.shrinking.widths import Widths, multiplied, spread

LARGEST = 2.0**10
"""No budget is searched for beyond this multiplier."""


def widen(
    model: keras.Model, multiplier: float | Widths | Budget | None = None, *, budget: Budget | None = None
) -> keras.Model:
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
        multiplier: By how much to multiply every width, above 0; widths are rounded up. Or `tfprune.Widths`: those of
            each group. Give either this or `budget`.
        budget: The budget to fill: the largest multiplier that stays within it is searched for, and groups to which
            one channel more can be given are one wider; a fraction below 1 is relative to this model.

    Returns:
        A new, plain Keras model, compiled like the model. A subclassed model comes back as a functional one.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or another argument has another type.
        ValueError: If both or neither of them are given, the multiplier is not above 0, no group is free, the budget is
            out of reach, or the widths name a group that is not free.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10)])
    >>> widen(model, 1.5).get_layer("conv").filters
    8
    >>> widen(model, budget=tfprune.Budget(parameters=1000)).get_layer("conv").filters
    26
    >>> widen(model, tfprune.Widths({"conv": 7})).get_layer("conv").filters
    7
    """
    if isinstance(multiplier, Budget) and budget is None:
        warnings.warn(
            "widen(model, Budget(...)) is deprecated. The budget has a name: widen(model, budget=Budget(...)).",
            DeprecationWarning,
            stacklevel=2,
        )
        multiplier, budget = None, multiplier
    _check(multiplier, budget)
    analysis = analyse(model)
    if not analysis.groups.free:
        raise ValueError(f"No channel of {model.name!r} is free, so no width can change.\n{analysis.groups}")
    if budget is not None:
        widths = _largest_within(model, analysis, budget)
    elif isinstance(multiplier, Widths):
        widths = multiplier.resolve(analysis.groups)
    else:
        assert isinstance(multiplier, numbers.Real)
        widths = multiplied(analysis.groups, float(multiplier))
    return rebuild_anew(model, analysis, spread(analysis, widths)[analysis.labels])


def _check(multiplier: float | Widths | Budget | None, budget: Budget | None) -> None:
    if (multiplier is None) == (budget is None):
        raise ValueError(f"Give either multiplier or budget. Received: multiplier={multiplier!r}, budget={budget!r}.")
    if budget is not None:
        if not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {budget!r}.")
        budget.check_counted()
        return
    if isinstance(multiplier, Widths):
        return
    if isinstance(multiplier, bool) or not isinstance(multiplier, numbers.Real):
        raise TypeError(f"multiplier must be a number or tfprune.Widths. Received: {multiplier!r}.")
    if not 0 < multiplier < float("inf"):
        raise ValueError(f"multiplier must be a number above 0, such as 1.5. Received: {multiplier!r}.")


def _largest_within(model: keras.Model, analysis: Analysis, budget: Budget) -> np.ndarray:
    count, free = SizeCounter(model, analysis), analysis.groups.free

    def sizes(widths: np.ndarray) -> dict[str, int]:
        return count(spread(analysis, widths), budget.limits())

    dense = sizes(multiplied(analysis.groups, 1))
    limits = budget.absolute(dense)

    def load_of(widths: np.ndarray) -> float:
        return load(sizes(widths), limits)

    multiplier = 1.0
    while load_of(multiplied(analysis.groups, multiplier)) <= 1:
        multiplier *= 2
        if multiplier > LARGEST:
            raise ValueError(f"{budget} allows more than {LARGEST:g} times the width of {model.name!r}. Lower it.")
    widths = fill(_steps([group.size for group in free], multiplier), load_of, most_extra=1)
    if widths is None:
        least = sizes(np.ones(len(free), int))
        smallest = {name: f"{least[name]:,} of {dense[name]:,}" for name in limits}
        raise ValueError(
            f"{budget} cannot be met by narrowing alone. The smallest that it can reach is {smallest}. Raise the "
            "budget; print(tfprune.channel_groups(model)) shows what is frozen."
        )
    return widths


def _steps(sizes: list[int], multiplier: float) -> Steps:
    """The order in which groups get one wider, from one channel each up to their sizes times a multiplier."""
    widths = [np.arange(1, int(size * multiplier)) for size in sizes]
    groups = np.repeat(np.arange(len(sizes)), [len(each) for each in widths])
    joined = np.concatenate(widths)
    order = np.argsort(joined / np.array(sizes)[groups], kind="stable")  # a width w is exceeded beyond w / size
    return Steps(np.ones(len(sizes), int), groups[order], joined[order] + 1)
