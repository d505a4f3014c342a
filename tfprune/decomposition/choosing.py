"""Which ranks: those that save operations, and the ones among them that an error or a budget asks for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import Method, Ranks
from tfprune.decomposition.fitting import Moments, fitted
from tfprune.decomposition.sites import Site
from tfprune.shrinking.budget import Budget, Steps, fill, load, measure

_FINE = 64
_FITTED = 12
"""So many ranks are fitted to data where what they lose is not known beforehand."""


@dataclass(frozen=True)
class Option:
    """One way to decompose a layer.

    Attributes:
        method: How.
        ranks: With which ranks.
        macs: What its pieces cost.
        parameters: How many weights their kernels have.
        loss: The fraction of the squares that is lost.
    """

    method: Method
    ranks: Ranks
    macs: int
    parameters: int
    loss: float


def option(site: Site, method: Method, ranks: Ranks, loss: float) -> Option:
    """Return a way to decompose a layer, with what it costs."""
    pieces = method.pieces(site.shape, ranks)
    return Option(method, ranks, site.macs(pieces), site.parameters(pieces), loss)


def saving_options(site: Site, methods: Sequence[Method], moments: Moments | None) -> list[Option]:
    """Return the ways to decompose a layer that cost fewer operations than the layer.

    As no place is looked at less often than there are outputs, they have fewer weights too.

    Args:
        site: The layer.
        methods: How it may be decomposed.
        moments: What goes into it, if that is known.

    Returns:
        From the cheapest on, and each one loses less than those before it.
    """
    found = list[Option]()
    for method in methods:
        most = _most(site, method)
        if not all(most):
            continue
        covariance = None if moments is None else moments.covariance
        ranks, losses = method.losses(site.kernel, most, covariance)
        each = (option(site, method, tuple(row), loss) for row, loss in _thinned(ranks, losses))
        saving = front(one for one in each if one.macs < site.macs(site.whole))
        if moments is not None and not method.optimal_on_data:
            some = np.unique(np.linspace(0, len(saving) - 1, min(_FITTED, len(saving))).round().astype(int))
            saving = [settled(site, saving[index], moments) for index in some.tolist()]
        found += saving
    return front(found)


def settled(site: Site, chosen: Option, moments: Moments | None) -> Option:
    """Return an option with what it really loses."""
    return replace(chosen, loss=fitted(site, chosen.method, chosen.ranks, moments).loss)


def front(options: Iterable[Option]) -> list[Option]:
    """Return the options that nothing beats in both operations and loss, from the cheapest on."""
    kept = list[Option]()
    for each in sorted(options, key=lambda one: (one.macs, one.loss)):
        if not kept or each.loss < kept[-1].loss:
            kept.append(each)
    return kept


def cheapest_within(options: Sequence[Option], loss: float) -> Option | None:
    """Return the cheapest option that loses at most so much, or None."""
    return next((each for each in options if each.loss <= loss + 1e-12), None)


def within_budget(
    model: keras.Model, sites: Sequence[Site], options: Sequence[Sequence[Option]], budget: Budget
) -> list[Option | None]:
    """Return an option for each layer, or None for the layer as it is, so that a budget is filled.

    Begins with the cheapest option of each layer, and gives back where that saves the most loss for what it costs.

    Args:
        model: The model.
        sites: Its layers.
        options: For each layer, what `saving_options` returned.
        budget: The budget.

    Raises:
        ValueError: If even the cheapest options are too large.
    """
    sizes = measure(model)
    limits = budget.absolute(sizes)
    costs = [_costs(site, each, limits) for site, each in zip(sites, options, strict=True)]
    losses = [_losses(each) for each in options]

    def load_of(numbers: Sequence[int]) -> float:
        saved = sum(cost[-1] - cost[number] for cost, number in zip(costs, numbers, strict=True))
        return load(dict(zip(limits, [sizes[name] for name in limits] - saved, strict=True)), limits)

    curves = [(_shares(cost, limits), lost) for cost, lost in zip(costs, losses, strict=True)]
    corners = [_corners(*curve) for curve in curves]
    steps = _steps([(cost[at], lost[at]) for (cost, lost), at in zip(curves, corners, strict=True)])
    widths = fill(steps, lambda each: load_of(_at(corners, each)))
    if widths is None:
        least = load_of(_at(corners, steps.narrowest))
        raise ValueError(
            f"The budget is out of reach: with rank 1 in all {len(sites)} layers that can be decomposed, "
            f"{model.name!r} is still {least:.3g} times as large as {limits}. Prune channels first, or raise them."
        )
    numbers = _topped_up(_at(corners, widths), losses, load_of)
    return [each[number] if number < len(each) else None for each, number in zip(options, numbers, strict=True)]


def _at(corners: Sequence[np.ndarray], widths: np.ndarray) -> list[int]:
    return [int(at[width]) for at, width in zip(corners, widths, strict=True)]


def _topped_up(
    numbers: list[int], losses: Sequence[np.ndarray], load_of: Callable[[Sequence[int]], float]
) -> list[int]:
    """Give what is left of a budget to the layers that lose most: options between two corners may still fit."""
    for index in np.argsort([-lost[number] for lost, number in zip(losses, numbers, strict=True)]).tolist():
        better = range(len(losses[index]) - 1, numbers[index], -1)
        candidates = ([*numbers[:index], number, *numbers[index + 1 :]] for number in better)
        numbers = next((each for each in candidates if load_of(each) <= 1), numbers)
    return numbers


def _most(site: Site, method: Method) -> Ranks:
    """The highest ranks that can save operations."""
    full = method.full(site.shape)
    if method.num_ranks > 1:
        return full
    # Of one rank, operations are a multiple.
    return (min(full[0], (site.macs(site.whole) - 1) // site.macs(method.pieces(site.shape, (1,)))),)


def _thinned(ranks: np.ndarray, losses: np.ndarray) -> Iterable[tuple[list[int], float]]:
    """All ranks, and of pairs those of some numbers along each axis."""
    if ranks.shape[1] > 1:
        fine = [np.unique(np.linspace(1, most, min(most, _FINE)).round()) for most in ranks.max(axis=0).tolist()]
        kept = np.all([np.isin(column, some) for column, some in zip(ranks.T, fine, strict=True)], axis=0)
        ranks, losses = ranks[kept], losses[kept]
    return zip(ranks.tolist(), losses.tolist(), strict=True)


def _losses(options: Sequence[Option]) -> np.ndarray:
    """What each option costs the network, and the layer as it is at the end.

    What is left of several layers is taken to be the product of what is left of each (Zhang et al. 2015), so that
    logarithms add up, and no layer is emptied because it is large.
    """
    return -np.log1p(-np.array([*(min(each.loss, 1 - 1e-9) for each in options), 0.0]))


def _costs(site: Site, options: Sequence[Option], limits: Iterable[str]) -> np.ndarray:
    """What each option has of what is limited, and the layer as it is at the end; `(options + 1, limits)`."""
    count: dict[str, Callable[[Any], float]] = {
        "macs": lambda each: each.macs,
        "parameters": lambda each: each.parameters,
        "weight_bytes": lambda each: 4 * each.parameters,
    }
    whole = Option(None, (), site.macs(site.whole), site.parameters(site.whole), 0.0)  # type: ignore[arg-type]
    return np.array([[count[name](each) for name in limits] for each in (*options, whole)], float)


def _shares(costs: np.ndarray, limits: dict[str, float]) -> np.ndarray:
    """One number for what several limits say: the sum of the shares of them."""
    return (costs / np.array([*limits.values()])).sum(axis=1)


def _corners(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Which options lie on the lower convex hull: each step towards the layer gains less than the one before."""
    hull = list[int]()
    for index in np.lexsort((losses, costs)).tolist():
        while len(hull) > 1 and _slope(costs, losses, hull[-2], hull[-1]) >= _slope(costs, losses, hull[-1], index):
            hull.pop()
        if not hull or losses[index] < losses[hull[-1]] or index == len(costs) - 1:
            hull.append(index)
    return np.array(hull)


def _slope(costs: np.ndarray, losses: np.ndarray, first: int, second: int) -> float:
    return float((losses[second] - losses[first]) / max(costs[second] - costs[first], np.finfo(float).tiny))


def _steps(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Steps:
    """All steps from the cheapest options to the layers, those first that save the most loss for what they cost."""
    gains = [-np.diff(losses) / np.diff(costs) for costs, losses in curves]
    groups = np.concatenate([np.full(len(each), index) for index, each in enumerate(gains)]).astype(int)
    widths = np.concatenate([np.arange(1, len(each) + 1) for each in gains]).astype(int)
    order = np.argsort(-np.concatenate(gains), kind="stable")
    return Steps(np.zeros(len(curves), int), groups[order], widths[order])
