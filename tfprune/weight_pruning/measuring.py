"""What a criterion of single weights needs to know, and where it comes from: data, or the architecture."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from tfprune.criteria import WeightCriterion
from tfprune.parts.kernels import Kernel
from tfprune.parts.weight_choice import Statistics as StatisticsOf
from tfprune.statistics import Statistics, gather
from tfprune.statistics.synaptic_flow import SynapticFlow

Measure: TypeAlias = Callable[[], StatisticsOf]
"""Looks at the model as it is now."""


def measure_for(
    criterion: WeightCriterion, model: keras.Model, kernels: Mapping[str, Kernel], data: Any, rounds: int
) -> Measure:
    """Return what measures the statistics that a criterion needs.

    Args:
        criterion: The criterion.
        model: The model.
        kernels: The kernels that are pruned, by name.
        data: What the user gave.
        rounds: How often it will be asked.

    Raises:
        ValueError: If data is missing, or cannot serve.
    """
    needs, name = set(criterion.needs), type(criterion).__name__
    if not needs:
        return lambda: lambda kernel: {}
    if needs == {"synaptic_flow"}:
        flow = SynapticFlow(model, [kernel.variable for kernel in kernels.values()])
        return lambda: _by_kernel(Statistics(0, {"synaptic_flow": flow()}), kernels, needs, name)
    if data is None:
        raise ValueError(
            f"{name} needs data, and none was given. Pass data=(x, y), or inputs alone where its loss needs no labels; "
            "criteria that need none are Magnitude(), LAMP() and SynFlow()."
        )
    if not isinstance(data, Statistics):
        return lambda: _by_kernel(_gathered(model, data, criterion), kernels, needs, name)
    if rounds > 1:
        raise ValueError(
            f"Statistics are of the model as it was, and {rounds} rounds measure it anew. Pass the data itself, or "
            "rounds=1."
        )
    if needs - data.names:
        raise ValueError(f"{name} needs the statistics {sorted(needs)}; those given are {sorted(data.names)}.")
    return lambda: _by_kernel(data, kernels, needs, name)


def _gathered(model: keras.Model, data: Any, criterion: WeightCriterion) -> Statistics:
    return gather(model, data, criterion.needs, loss=criterion.loss, temperature=criterion.temperature)


def _by_kernel(found: Statistics, kernels: Mapping[str, Kernel], needs: set[str], criterion: str) -> StatisticsOf:
    def of(name: str) -> dict[str, np.ndarray]:
        known = found.of_variable(kernels[name].path)
        missing = sorted(needs - set(known))
        if missing:
            kind = type(kernels[name].layer).__name__
            raise ValueError(
                f"{criterion} cannot score {name!r}: there is no {missing[0]!r} for a {kind}. Name the layers to "
                "prune, sparsity={layer: fraction}, or use another criterion."
            )
        return known

    return of
