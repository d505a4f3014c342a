"""Take layers apart into smaller ones: choose ranks, fit the factors, put them into a copy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.decomposition.base import Method, Ranks
from tfprune.decomposition.choosing import (
    Option,
    cheapest_within,
    option,
    saving_options,
    settled,
    within_budget,
)
from tfprune.decomposition.fitting import Activations, Moments, fitted
from tfprune.decomposition.ranks import VBMF, ChosenRanks, LayerRanks, RanksByHand
from tfprune.decomposition.replacing import Replacer
from tfprune.decomposition.requests import Methods, check_request, checked_ranks, given_ranks, methods_of
from tfprune.decomposition.sites import Site, Sites
from tfprune.graph.exclude import Exclude
from tfprune.shrinking.budget import Budget
from tfprune.shrinking.recalibration import batch_normalizations, recalibrate

Rule = Callable[[Site, Sequence[Method], Moments | None], Option | str]
"""Chooses an option for a layer, or says why it stays."""


def choose_ranks(
    model: keras.Model,
    *,
    ranks: RanksByHand | VBMF | None = None,
    budget: Budget | None = None,
    energy: float | None = None,
    method: Methods = None,
    data: Any = None,
    exclude: Exclude = None,
) -> ChosenRanks:
    """Return how `decompose` would take a model apart, layer by layer, without making the copy.

    `decompose(model, ranks=chosen)` makes it. The arguments are those of `decompose`.

    Args:
        model: A built Keras model.
        ranks: Ranks by hand, or `VBMF()`.
        budget: The budget to fill.
        energy: The fraction of the squares to keep in each layer.
        method: How layers are decomposed.
        data: Samples that the factors are fitted to.
        exclude: Layers to leave alone.

    Returns:
        One row per layer: method, ranks, operations, weights and relative error; print it for a table.

    Raises:
        TypeError: As `decompose`.
        ValueError: As `decompose`.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(1)])
    >>> kernel = model.get_layer("hidden").kernel.assign(np.outer(np.arange(8), np.ones(8)))
    >>> chosen = choose_ranks(model, energy=0.9)
    >>> [(row.name, str(row.method), row.ranks, row.macs, row.new_macs) for row in chosen.replaced]
    [('hidden', 'SVD', (1,), 64, 16)]
    """
    check_request(ranks, budget, energy)
    sites = Sites.of(model, exclude)
    if not sites.each:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in sites.stays.items()) or "it has no kernels"
        raise ValueError(f"No layer of {model.name!r} can be decomposed: {reasons}.")
    given = given_ranks(model, sites, ranks)
    methods, refused = methods_of(model, sites, method)
    chosen: dict[int, Option | str] = {id(site.layer): reason for site, reason in refused}
    free = [site for site in sites.each if id(site.layer) not in chosen]
    if given is not None:
        chosen |= {id(site.layer): "no rank is given for it" for site in free if given[id(site.layer)] is None}
        free = [site for site in free if given[id(site.layer)] is not None]
        for site in free:
            given[id(site.layer)] = checked_ranks(site, given[id(site.layer)], methods[id(site.layer)])
    inputs = Activations(model, free, data)
    if budget is not None:
        options = [saving_options(site, methods[id(site.layer)], inputs.of(index)) for index, site in enumerate(free)]
        found: Sequence[Option | str | None] = within_budget(model, free, options, budget) if free else []
    else:
        rule = _by_hand(given) if given is not None else _by_noise(ranks) if energy is None else _by_energy(energy)  # type: ignore[arg-type]
        found = [rule(site, methods[id(site.layer)], inputs.of(index)) for index, site in enumerate(free)]
    for site, each in zip(free, found, strict=True):
        is_bound = isinstance(each, Option) and data is None  # what is lost was told by a bound
        final = settled(site, each, None) if is_bound else each  # type: ignore[arg-type]
        chosen[id(site.layer)] = final or "the budget holds without it"
    rows = [_row(site, chosen[id(site.layer)]) for site in sites.each]
    return ChosenRanks(model.name, (*rows, *(LayerRanks(name, stays=why) for name, why in sites.stays.items())))


def decompose(
    model: keras.Model,
    *,
    ranks: RanksByHand | VBMF | ChosenRanks | None = None,
    budget: Budget | None = None,
    energy: float | None = None,
    method: Methods = None,
    data: Any = None,
    exclude: Exclude = None,
) -> keras.Model:
    """Replace layers by two or three smaller ones of low rank, and return a plain Keras model.

    `Dense` layers and convolutions of one group become a product of smaller ones where that costs fewer operations, and
    stay where it does not: `tfprune.choose_ranks` shows it in a table. The last of the new layers keeps the name, the
    bias and the activation, and BatchNormalization stays; the others are called `NAME_factor`. The model itself is not
    changed. Fine-tune the copy afterwards; it can be pruned, quantized and exported like any other.

    With data, factors are fitted to what goes into each layer instead of to its kernel, the bias takes up the mean of
    what is lost, and BatchNormalization statistics are measured anew. No labels are needed.

    Reference: Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions, BMVC 2014,
    https://arxiv.org/abs/1405.3866; Zhang et al., TPAMI 2015, https://arxiv.org/abs/1505.06798; Kim et al., ICLR 2016,
    https://arxiv.org/abs/1511.06530

    Args:
        model: A built Sequential, functional or subclassed Keras model.
        ranks: Ranks by hand, as a dict from layer objects or a function of a layer: a number, or two for `Tucker`;
            `VBMF()`; or what `choose_ranks` returned. Give either this, `budget` or `energy`.
        budget: The budget to fill: ranks are lowered where the least is lost for the operations that are saved.
        energy: In each layer keep at least this fraction, in (0, 1], of the squares of the kernel, or with data of the
            variance of the outputs.
        method: How layers are decomposed: `SVD()`, `SpatialSVD()`, `Tucker()` or `CP()` of `tfprune.decomposition`, for
            all layers, or by layer in a dict or a function. By default the cheapest of the first three at equal error.
        data: Some hundreds of samples in any form that `fit` takes; up to 1,024 are used.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to bool.

    Returns:
        A new model, compiled like the model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or an argument has another type.
        ValueError: If not one of `ranks`, `budget` and `energy` is given, a rank is too high to save anything, a layer
            that is named has no such decomposition, the budget is out of reach, nothing can be saved, or the data does
            not fit.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(1)])
    >>> small = decompose(model, ranks={model.get_layer("hidden"): 2})
    >>> [(layer.name, layer.units) for layer in small.layers][:2]
    [('hidden_factor', 2), ('hidden', 8)]
    """
    if isinstance(ranks, ChosenRanks):
        if budget is not None or energy is not None or method is not None:
            raise ValueError("What choose_ranks returned says all: leave out budget, energy and method.")
        chosen = ranks
    else:
        options: dict[str, Any] = {"method": method, "data": data, "exclude": exclude}
        chosen = choose_ranks(model, ranks=ranks, budget=budget, energy=energy, **options)
        if not chosen.replaced and budget is None:
            raise ValueError(f"No layer would be replaced, so the copy would be the model itself:\n{chosen}")
    sites = Sites.of(model, exclude)
    rows = _rows_of(sites, chosen)
    inputs = Activations(model, [site for site, _ in rows], data)
    made = {}
    for index, (site, row) in enumerate(rows):
        assert row.method is not None
        made[id(site.layer)] = fitted(site, row.method, row.ranks, inputs.of(index))
    small = Replacer(model, made, sites.opened).rewrite(model)
    if data is not None and batch_normalizations(small):
        recalibrate(small, data, max_samples=1024)
    return small


def _by_hand(given: Mapping[int, Ranks]) -> Rule:
    def choose(site: Site, methods: Sequence[Method], moments: Moments | None) -> Option | str:
        ranks = given[id(site.layer)]
        fitting = [method for method in methods if method.num_ranks == len(ranks)]
        options = [option(site, method, ranks, 1.0) for method in fitting]
        saving = [settled(site, each, moments) for each in options if each.macs < site.macs(site.whole)]
        if not saving:
            costs = min(each.macs for each in options)
            raise ValueError(
                f"With the ranks {ranks}, what takes the place of {site.name!r} costs {costs:,} operations, and the "
                f"layer itself {site.macs(site.whole):,}. Give lower ranks, or leave the layer out."
            )
        return min(saving, key=lambda each: each.loss)

    return choose


def _by_noise(vbmf: VBMF) -> Rule:
    def choose(site: Site, methods: Sequence[Method], moments: Moments | None) -> Option | str:
        # As in the paper, a window goes between fewer channels, and a matrix is one.
        method = next((each for each in methods if each.num_ranks == 2), methods[0])
        found = method.noise_ranks(site.kernel)
        if not all(found):
            return "VBMF finds nothing but noise in it"
        full = method.full(site.shape)
        ranks = tuple(min(max(round(vbmf.multiplier * r), 1), most) for r, most in zip(found, full, strict=True))
        made = option(site, method, ranks, 1.0)
        if made.macs >= site.macs(site.whole):
            return f"{method} with the ranks {ranks} that VBMF finds saves nothing"
        return settled(site, made, moments)

    return choose


def _by_energy(energy: float) -> Rule:
    def choose(site: Site, methods: Sequence[Method], moments: Moments | None) -> Option | str:
        found = cheapest_within(saving_options(site, methods, moments), 1 - energy)
        return found or f"no ranks that save operations keep {energy:g} of the squares"

    return choose


def _row(site: Site, chosen: Option | str) -> LayerRanks:
    macs, parameters = site.macs(site.whole), site.parameters(site.whole)
    if isinstance(chosen, str):
        return LayerRanks(site.name, None, (), macs, macs, parameters, parameters, stays=chosen)
    sizes = macs, chosen.macs, parameters, chosen.parameters
    return LayerRanks(site.name, chosen.method, chosen.ranks, *sizes, error=float(np.sqrt(chosen.loss)))


def _rows_of(sites: Sites, chosen: ChosenRanks) -> list[tuple[Site, LayerRanks]]:
    """The layers that are replaced, with their rows; of a model that the rows do not fit, an error."""
    known = {site.name: site for site in sites.each}
    for row in chosen.replaced:
        if row.name not in known or row.parameters != known[row.name].parameters(known[row.name].whole):
            raise ValueError(
                f"The ranks were chosen for another model, {chosen.model!r}, or for other excluded layers: "
                f"{row.name!r} cannot be decomposed here, or has another kernel. Choose them anew."
            )
    return [(known[row.name], row) for row in chosen.replaced]
