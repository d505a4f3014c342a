"""Which weights of a model are pruned, and which masks follow from scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeAlias

import keras
import numpy as np

from tfprune.criteria import Magnitude, WeightCriterion, WeightView
from tfprune.distributions import Distribution, global_, uniform
from tfprune.granularity import Granularity, prune_lowest
from tfprune.graph.exclude import Exclude, Overrides, resolve_overrides
from tfprune.parts.kernels import Kernel, kernels
from tfprune.parts.lazy_arrays import Arrays, LazyArrays

Scope: TypeAlias = Literal["global", "local", "output"]
"""What the scores of a criterion can be compared with; see `WeightCriterion`."""

Statistics: TypeAlias = Callable[[str], Mapping[str, np.ndarray]]
"""From the name of a kernel to what data says about its weights, by the name of the statistic."""


@dataclass(frozen=True)
class Choice:
    """The kernels that are pruned, and what is pruned together in them.

    Attributes:
        kernels: By name.
        own: The sparsities of those that have one of their own; they count apart from all others.
        granularity: What is pruned together.
    """

    kernels: dict[str, Kernel]
    own: dict[str, float]
    granularity: Granularity

    @classmethod
    def of(
        cls,
        model: keras.Model,
        granularity: Granularity,
        exclude: Exclude,
        overrides: Overrides,
        argument: str = "overrides",
    ) -> "Choice":
        """Find the kernels of a model; those of depthwise convolutions only where `overrides` names them.

        Args:
            model: The model.
            granularity: What is pruned together.
            exclude: Layers to leave alone.
            overrides: Sparsities of their own for some layers.
            argument: What the user calls these, for messages.

        Raises:
            ValueError: If an override or the granularity does not fit.
        """
        found = kernels(model, exclude)
        settings = resolve_overrides(model, overrides, [kernel.variable for kernel in found], argument)
        own = dict(zip((kernel.name for kernel in found), settings, strict=True))
        chosen = {kernel.name: kernel for kernel in found if not kernel.depthwise or own[kernel.name] is not None}
        choice = cls(chosen, {name: value for name, value in own.items() if value is not None}, granularity)
        choice._check(argument)
        return choice

    def masks(
        self,
        scores: Arrays,
        sparsity: float,
        progress: float,
        distribution: Distribution,
        scope: Scope = "local",
    ) -> dict[str, np.ndarray]:
        """Return masks that prune the lowest scores, one kernel after another.

        Args:
            scores: By kernel name; higher means keep, -inf is gone already.
            sparsity: The fraction of all weights to prune, in [0, 1).
            progress: How much of the own sparsities is due.
            distribution: How the sparsity is split over the kernels.
            scope: See `WeightCriterion`; at `"output"` each output keeps as many units.
        """

        def units_of(name: str) -> np.ndarray:
            units = self.granularity.units(scores[name], self._axis(name))
            return ranks_within(units, self.kernels[name].output_axes) if scope == "output" else units

        units = LazyArrays(self.kernels, units_of)
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

    def _check(self, argument: str) -> None:
        for name, own in self.own.items():
            if isinstance(own, bool) or not isinstance(own, Real) or not 0 <= own < 1:
                raise ValueError(
                    f"The sparsity that `{argument}` gives {name!r} must be a number in [0, 1). Received: {own!r}."
                )
            self.granularity.check_sparsity(own)
        for name, kernel in self.kernels.items():
            try:
                self.granularity.units(np.ones((1,) * len(kernel.variable.shape)), kernel.input_axis)
            except ValueError as error:
                way = "Leave it out with `exclude`" if argument == "overrides" else f"Name the others in `{argument}`"
                raise ValueError(f"{name!r} cannot be pruned so. {way}, or: {error}") from error


def distribution_for(criterion: WeightCriterion) -> Distribution:
    """Return how sparsity is split over layers if nobody says it: by rank where scores of all layers compare.

    Example:

    >>> from tfprune.criteria import SNIP
    >>> distribution_for(SNIP()).__name__, distribution_for(Magnitude()).__name__
    ('global_', 'uniform')
    """
    return global_ if criterion.scope == "global" else uniform


def ranks_within(units: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return for each unit its rank among those at the same place on some axes, 0 for the lowest; of equal ones the
    later is lower. What must stay (+inf) must stay.

    Args:
        units: Scores of units.
        axes: The axes, negative.

    Example:

    >>> ranks_within(np.array([[3.0, 7.0], [1.0, 7.0], [2.0, np.inf]]), (-1,))
    array([[ 2.,  1.],
           [ 0.,  0.],
           [ 1., inf]])
    """
    front = np.moveaxis(units, axes, range(len(axes)))
    rows = front.reshape(*front.shape[: len(axes)], -1)
    lowest_first = rows.shape[-1] - 1 - np.argsort(rows[..., ::-1], axis=-1, kind="stable")
    ranks = np.empty(rows.shape)
    np.put_along_axis(ranks, lowest_first, np.arange(rows.shape[-1], dtype=float), axis=-1)
    ranks[np.isposinf(rows)] = np.inf
    return np.moveaxis(ranks.reshape(front.shape), range(len(axes)), axes)


def scores_of(
    criterion: WeightCriterion, weights: Arrays, masks: Arrays, statistics: Statistics | None = None
) -> LazyArrays:
    """Return what a criterion says of living weights, and -inf for pruned ones, which are counted first and stay so.

    Args:
        criterion: The criterion.
        weights: By kernel name.
        masks: Which weights live, by kernel name.
        statistics: From the name of a kernel to what data says about it, by the name of the statistic.

    Raises:
        ValueError: When scores are asked for, if they have another shape than the weights, or some are NaN.

    Example:

    >>> scores = scores_of(Magnitude(), {"a": np.array([-2.0, 0.0, 1.0])}, {"a": np.array([True, False, True])})
    >>> scores["a"]
    array([  2., -inf,   1.])
    """

    def score(name: str) -> np.ndarray:
        if type(criterion) is Magnitude and isinstance(weights, LazyArrays):
            # What LazyArrays makes belongs to us; a copy of a large kernel would cost as much as its weights.
            values = weights[name]
            scores = np.abs(values, out=values)
        else:
            known = {} if statistics is None else statistics(name)
            view = WeightView(name, lambda: weights[name], statistics=known)
            scores = _checked(np.array(criterion.score(view), dtype=float), view, criterion)
        np.copyto(scores, -np.inf, where=~masks[name])
        return scores

    scores = LazyArrays(weights, score)
    if not criterion.sums_to_one:
        return scores
    total = sum(float(each[np.isfinite(each)].sum()) for each in scores.values())
    return LazyArrays(weights, lambda name: score(name) / total) if total else scores


def _checked(scores: np.ndarray, view: WeightView, criterion: WeightCriterion) -> np.ndarray:
    if scores.shape != view.weights.shape:
        raise ValueError(
            f"{type(criterion).__name__} must return one score per weight of {view.name!r}, an array of shape "
            f"{view.weights.shape}. It returned the shape {scores.shape}."
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"{type(criterion).__name__} gives weights of {view.name!r} the score NaN, so that they cannot be ranked. "
            "The weights, or what data says about them, are not finite: check the data, and the loss on it."
        )
    return scores
