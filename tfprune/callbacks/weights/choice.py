"""Which weights of a model are pruned, and which masks follow from scores."""

from dataclasses import dataclass
from numbers import Real

import keras
import numpy as np

from tfprune.callbacks.weights.arrays import Arrays, LazyArrays
from tfprune.distributions import Distribution, uniform
from tfprune.granularity import Granularity, prune_lowest
from tfprune.graph.exclude import Exclude, Overrides, resolve_overrides
from tfprune.parts.kernels import Kernel, kernels


@dataclass(frozen=True)
class Choice:
    """The kernels that a callback prunes, and what is pruned together in them.

    Attributes:
        kernels: By name.
        own: The sparsities of those that have one of their own; they count apart from all others.
        granularity: What is pruned together.
    """

    kernels: dict[str, Kernel]
    own: dict[str, float]
    granularity: Granularity

    @classmethod
    def of(cls, model: keras.Model, granularity: Granularity, exclude: Exclude, overrides: Overrides) -> "Choice":
        """Find the kernels of a model; those of depthwise convolutions only where `overrides` names them.

        Raises:
            ValueError: If an override or the granularity does not fit.
        """
        found = kernels(model, exclude)
        settings = resolve_overrides(model, overrides, [kernel.variable for kernel in found])
        own = dict(zip((kernel.name for kernel in found), settings, strict=True))
        chosen = {kernel.name: kernel for kernel in found if not kernel.depthwise or own[kernel.name] is not None}
        choice = cls(chosen, {name: value for name, value in own.items() if value is not None}, granularity)
        choice._check()
        return choice

    def masks(
        self, scores: Arrays, sparsity: float, progress: float, distribution: Distribution
    ) -> dict[str, np.ndarray]:
        """Return masks that prune the lowest scores, one kernel after another.

        Args:
            scores: By kernel name; higher means keep.
            sparsity: The fraction of all weights to prune, in [0, 1).
            progress: How much of the own sparsities is due.
            distribution: How the sparsity is split over the kernels.
        """
        units = LazyArrays(self.kernels, lambda name: self.granularity.units(scores[name], self._axis(name)))
        split = LazyArrays([name for name in self.kernels if name not in self.own], units.__getitem__)
        counts = distribution(split, sparsity) if split else {}
        for name, own in self.own.items():
            counts |= uniform(LazyArrays([name], units.__getitem__), own * progress)
        return {name: self._mask(units[name], counts[name], kernel) for name, kernel in self.kernels.items()}

    def _mask(self, units: np.ndarray, count: int, kernel: Kernel) -> np.ndarray:
        kept = prune_lowest(units, count)
        return self.granularity.expand(kept, tuple(kernel.variable.shape), kernel.input_axis)

    def _axis(self, name: str) -> int:
        return self.kernels[name].input_axis

    def _check(self) -> None:
        for name, own in self.own.items():
            if isinstance(own, bool) or not isinstance(own, Real) or not 0 <= own < 1:
                raise ValueError(
                    f"The sparsity that `overrides` gives {name!r} must be a number in [0, 1). Received: {own!r}."
                )
            self.granularity.check_sparsity(own)
        for name, kernel in self.kernels.items():
            try:
                self.granularity.units(np.ones((1,) * len(kernel.variable.shape)), kernel.input_axis)
            except ValueError as error:
                raise ValueError(f"{name!r} cannot be pruned so. Leave it out with `exclude`, or: {error}") from error


def scores_of_magnitude(weights: Arrays, masks: Arrays) -> LazyArrays:
    """Return |weight| for living weights, and -1 for pruned ones, so that these are counted first and stay pruned.

    Args:
        weights: By kernel name.
        masks: Which weights live, by kernel name.

    Example:

    >>> scores = scores_of_magnitude({"a": np.array([-2.0, 0.0, 1.0])}, {"a": np.array([True, False, True])})
    >>> scores["a"]
    array([ 2., -1.,  1.])
    """

    def score(name: str) -> np.ndarray:
        values = weights[name]
        # What LazyArrays makes belongs to us; a copy of a large kernel would cost as much as its weights.
        scores = np.abs(values, out=values if isinstance(weights, LazyArrays) else None)
        np.copyto(scores, -1.0, where=~masks[name])
        return scores

    return LazyArrays(weights, score)
