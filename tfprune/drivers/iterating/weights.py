"""Single weights: which go in a round, exactly how many, and what holds them at zero."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import keras
import numpy as np

from tfprune.criteria import as_weight_criterion
from tfprune.distributions import Distribution, global_, uniform
from tfprune.drivers.iterating.held import HoldMasks
from tfprune.drivers.iterating.pruners import Choice, Pruner
from tfprune.drivers.iterating.states import State
from tfprune.drivers.iterating.what import PruneWeights, check_part
from tfprune.granularity import floor_share
from tfprune.graph.exclude import resolve_overrides
from tfprune.parts import weight_choice
from tfprune.parts.kernels import kernels
from tfprune.parts.lazy_arrays import LazyArrays
from tfprune.parts.weight_choice import scores_of
from tfprune.training.masks import Masks, record_masks
from tfprune.weight_pruning.measuring import measure_for


class WeightPruner(Pruner):
    """Prunes single weights, in place.

    Args:
        model: The user's model, whose layers `prune` may name.
        copy: The copy that is trained; its kernels have the same names.
        prune: What is pruned.
        data: What is trained on, for a criterion that needs it.
    """

    unit = "weights"
    in_place = True

    def __init__(self, model: keras.Model, copy: keras.Model, prune: PruneWeights, data: Any) -> None:
        self._prune = prune
        self._criterion = as_weight_criterion(prune.criterion, "PruneWeights")
        self._fractions = _fractions(model, prune)
        if not self._fractions:
            raise ValueError(
                f"PruneWeights finds no weights to prune in {model.name!r}: no layer with a kernel is left."
            )
        self._kernels = {kernel.name: kernel for kernel in kernels(copy) if kernel.name in self._fractions}
        self._granularity = weight_choice.Choice(self._kernels, {}, prune.granularity)
        self._measure = measure_for(self._criterion, copy, self._kernels, data, rounds=2)

    def settings(self) -> dict[str, Any]:
        """Return the fraction of each kernel."""
        return {"fractions": list(self._fractions.values())}

    def whole(self) -> Choice:
        """Return the choice with which all is left."""
        return {name: np.ones(tuple(kernel.variable.shape), bool) for name, kernel in self._kernels.items()}

    def choose(self, model: keras.Model, choice: Choice) -> Choice:
        """Take the lowest scores of what is left."""
        weights = LazyArrays(self._kernels, lambda name: self._kernels[name].variable.numpy())
        scores = scores_of(self._criterion, weights, choice, self._measure())
        masks = self._granularity.masks(scores, 0.0, 1.0, self._counts(choice), self._criterion.scope)
        return {name: mask & choice[name] for name, mask in masks.items()}

    def apply(self, model: keras.Model, before: Choice, choice: Choice) -> keras.Model:
        """Return the same model: its form stays."""
        return model

    def cut(self, state: State, before: Choice, choice: Choice) -> State:
        """Return the same state: what is pruned is marked when a model has it."""
        return state

    def mark(self, model: keras.Model, choice: Choice) -> None:
        """Write the zeros of pruned weights."""
        record_masks(model, self.held(model, choice))

    def held(self, model: keras.Model, choice: Choice) -> Masks:
        """Return the masks."""
        return self.masks(choice)

    def masks(self, choice: Choice) -> Masks:
        """Return the masks."""
        return {self._kernels[name].path: mask for name, mask in choice.items()}

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return what holds all that weights carry."""
        return [HoldMasks()]

    def _counts(self, choice: Choice) -> Distribution:
        """How many units of each kernel are pruned after the round, with those that are pruned already (-inf)."""

        gone = {name: self._units_gone(name, mask) for name, mask in choice.items()}

        def local(units: Any, _: float) -> dict[str, int]:
            counts: dict[str, int] = {}
            for name, fraction in self._fractions.items():
                array = units[name]
                count = gone[name] + floor_share(array.size - gone[name], fraction)
                # As an exact fraction, of which no rounding makes one less.
                counts |= uniform({name: array}, _exact(count, array.size))
            return counts

        def together(units: Any, _: float) -> dict[str, int]:
            size, before = sum(units[name].size for name in units), sum(gone.values())
            fraction = next(iter(self._fractions.values()))
            return global_(units, _exact(before + floor_share(size - before, fraction), size))

        return together if self._prune.ranking == "global" else local

    def _units_gone(self, name: str, mask: np.ndarray) -> int:
        marked = np.where(mask, 0.0, -np.inf)
        return int(np.isneginf(self._prune.granularity.units(marked, self._kernels[name].input_axis)).sum())


def _exact(count: int, size: int) -> Any:
    return Fraction(count, size)


def _fractions(model: keras.Model, prune: PruneWeights) -> dict[str, float]:
    """The fraction of each kernel that is pruned, by name."""
    found = kernels(model, prune.exclude)
    if not (isinstance(prune.fraction, Mapping) or callable(prune.fraction)):
        every = check_part("fraction", prune.fraction)
        return {kernel.name: every for kernel in found if not kernel.depthwise}
    own = resolve_overrides(model, prune.fraction, [kernel.variable for kernel in found], "fraction")
    pairs = [(kernel, fraction) for kernel, fraction in zip(found, own, strict=True) if fraction is not None]
    return {kernel.name: check_part(f"fraction of {kernel.name!r}", fraction) for kernel, fraction in pairs}
