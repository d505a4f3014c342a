"""What is asked of `decompose`, checked before anything is computed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.common.checks import check_count
from tfprune.decomposition.base import Method, Ranks
from tfprune.decomposition.ranks import VBMF
from tfprune.decomposition.sites import Site, Sites
from tfprune.decomposition.svd import SVD, SpatialSVD
from tfprune.decomposition.tucker import Tucker
from tfprune.graph.chains import chains
from tfprune.graph.exclude import resolve_overrides
from tfprune.shrinking.budget import Budget

Methods = Method | Mapping[keras.layers.Layer, Method] | Callable[[keras.layers.Layer], Method | None] | None

AUTOMATIC: tuple[Method, ...] = (SVD(), SpatialSVD(), Tucker())
"""What is tried where no method is given: those that tell the loss of every rank from one decomposition."""


def check_request(ranks: Any, budget: Any, energy: Any) -> None:
    """Raise unless exactly one of them is given, and budget and energy are what they should be."""
    given = {"ranks": ranks, "budget": budget, "energy": energy}
    if sum(each is not None for each in given.values()) != 1:
        received = ", ".join(f"{name}={each!r}" for name, each in given.items())
        raise ValueError(f"Give one of ranks, budget and energy, such as energy=0.9. Received: {received}.")
    if budget is not None:
        if not isinstance(budget, Budget):
            raise TypeError(f"budget must be a Budget, such as tfprune.Budget(macs=0.5). Received: {budget!r}.")
        budget.check_counted()
    if energy is not None and (isinstance(energy, bool) or not isinstance(energy, int | float) or not 0 < energy <= 1):
        raise ValueError(f"energy is the fraction of the squares to keep, in (0, 1]. Received: {energy!r}.")


def given_ranks(model: keras.Model, sites: Sites, ranks: Any) -> dict[int, Any] | None:
    """Return the ranks of each layer as they were given, by its id; None where they are not given by hand."""
    if ranks is None or isinstance(ranks, VBMF):
        return None
    if not isinstance(ranks, Mapping) and (not callable(ranks) or isinstance(ranks, type)):
        raise TypeError(
            "ranks must be a dict from layer objects to ranks, a function from a layer to its ranks or None, VBMF(), "
            f"or what choose_ranks returned. Received: {ranks!r}."
        )
    _check_named(model, sites, ranks, "ranks")
    settings = resolve_overrides(model, ranks, [site.layer.kernel for site in sites.each], "ranks")
    return {id(site.layer): each for site, each in zip(sites.each, settings, strict=True)}


def _check_named(model: keras.Model, sites: Sites, given: Any, argument: str) -> None:
    """Raise if a dict names layers that cannot be decomposed, with the reason."""
    if not isinstance(given, Mapping):
        return
    known = {id(site.layer) for site in sites.each}
    for chain in chains(model):
        layer, name = chain[-1], "/".join(each.name for each in chain)
        if layer in given and not any(id(each[-1]) in known for each in (chain, *chains(layer))):
            why = sites.stays.get(name, f"a {type(layer).__name__} has no decomposition")
            can = [site.name for site in sites.each]
            raise ValueError(f"{argument} names {name!r}, which stays: {why}. Layers that can be decomposed are {can}.")


def methods_of(
    model: keras.Model, sites: Sites, given: Any
) -> tuple[dict[int, Sequence[Method]], list[tuple[Site, str]]]:
    """Return the methods that each layer can have, by its id, and the layers that a method for all cannot serve."""
    if given is None:
        return {id(site.layer): [m for m in AUTOMATIC if not m.refusal(site.layer)] for site in sites.each}, []
    if isinstance(given, Method):
        reasons = [(site, given.refusal(site.layer)) for site in sites.each]
        refused = [(site, f"{given} does not fit: {reason}") for site, reason in reasons if reason]
        return {id(site.layer): [given] for site in sites.each}, refused
    if not isinstance(given, Mapping) and (not callable(given) or isinstance(given, type)):
        raise TypeError(
            "method must be SVD(), SpatialSVD(), Tucker() or CP(), or a dict or a function from layers to these. "
            f"Received: {given!r}."
        )
    _check_named(model, sites, given, "method")
    settings = resolve_overrides(model, given, [site.layer.kernel for site in sites.each], "method")
    found: dict[int, Sequence[Method]] = {}
    for site, own in zip(sites.each, settings, strict=True):
        if own is not None and not isinstance(own, Method):
            raise TypeError(f"The method of {site.name!r} must be one such as Tucker(). Received: {own!r}.")
        if own is not None and own.refusal(site.layer):
            raise ValueError(f"{own} cannot decompose {site.name!r}: {own.refusal(site.layer)}.")
        found[id(site.layer)] = [own] if own else [m for m in AUTOMATIC if not m.refusal(site.layer)]
    return found, []


def checked_ranks(site: Site, given: Any, methods: Sequence[Method]) -> Ranks:
    """Return the ranks of a layer, or raise where no method takes them."""
    ranks = (given,) if isinstance(given, int | np.integer) else tuple(given) if isinstance(given, Sequence) else ()
    counts = sorted({method.num_ranks for method in methods})
    if len(ranks) not in counts:
        how = " or ".join({1: "one rank", 2: "two, as in (8, 16)"}[count] for count in counts)
        raise ValueError(f"{site.name!r} takes {how}. Received: {given!r}.")
    for each in ranks:
        check_count(f"The rank of {site.name!r}", int(each) if isinstance(each, np.integer) else each)
    fitting = [method for method in methods if method.num_ranks == len(ranks)]
    full = max(method.full(site.shape) for method in fitting)
    if any(each > most for each, most in zip(ranks, full, strict=True)):
        raise ValueError(
            f"The rank of {site.name!r}, whose kernel is {' x '.join(map(str, site.shape))}, is at most "
            f"{' x '.join(map(str, full))}. Received: {given!r}."
        )
    return tuple(int(each) for each in ranks)
