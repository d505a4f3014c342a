"""Count a model with other widths, without making it: parameters and multiply-accumulates from the number of channels.

Every size of a variable or tensor is either fixed or the number of channels that stay on one axis, and every cost is a
sum of products of sizes. What `graph/costs.py` multiplies for a model as it is, it multiplies here for any widths.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph.channel_costs import Term, parameter_terms
from tfprune.graph.costs import Sizes, multiply_accumulates
from tfprune.graph.groups import Analysis
from tfprune.graph.liveness import CONSTANT, arrivals
from tfprune.graph.rules.channel_axes import varying_axes
from tfprune.graph.walk import functional


@dataclass(frozen=True, repr=False)
class Polynomial:
    """A sum of products of sizes; it multiplies and adds like a number, and prints as what it is with all channels.

    Attributes:
        terms: The products.
    """

    terms: tuple[Term, ...]

    def __mul__(self, other: "Polynomial | int") -> "Polynomial":
        if not isinstance(other, Polynomial):
            return Polynomial(tuple(Term(other * term.amount, term.axes) for term in self.terms))
        return Polynomial(
            tuple(Term(a.amount * b.amount, a.axes + b.axes) for a in self.terms for b in other.terms),
        )

    def __add__(self, other: "Polynomial | int") -> "Polynomial":
        more = other.terms if isinstance(other, Polynomial) else (Term(other, ()),)
        return Polynomial(self.terms + more)

    def __repr__(self) -> str:
        return f"{sum(term.amount for term in self.terms):g}"

    __rmul__, __radd__ = __mul__, __add__


class ChannelSizes(Sizes):
    """Shapes in which the sizes of axes that channels lie along are polynomials.

    Args:
        analysis: The analysis of a model.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._labels, self._bindings = analysis.labels, analysis.trace.bindings
        self._channels: dict[int, np.ndarray] = {}
        for call in analysis.trace.calls:
            ends = (
                *zip(call.node.inputs, call.inputs, strict=True),
                *zip(call.node.outputs, call.outputs, strict=True),
            )
            self._channels |= {id(tensor): channels for tensor, channels in ends}

    def variable(self, variable: keras.Variable) -> tuple[Any, ...]:
        """Return the shape of a variable."""
        bindings = [self._bindings.get((id(variable), axis)) for axis in range(len(variable.shape))]
        return tuple(
            size if binding is None else self._size(binding.channels)
            for size, binding in zip(variable.shape, bindings, strict=True)
        )

    def tensor(self, tensor: keras.KerasTensor) -> tuple[Any, ...]:
        """Return the shape of a symbolic tensor, without the batch axis."""
        shape = list[Any](tensor.shape[1:])
        channels = self._channels.get(id(tensor))
        if channels is not None:
            for axis in varying_axes(channels):
                shape[axis] = self._size(np.moveaxis(channels, axis, 0).reshape(channels.shape[axis], -1)[:, 0])
        return tuple(shape)

    def _size(self, channels: np.ndarray) -> Polynomial:
        return Polynomial((Term(len(channels), (self._labels[channels],)),))


class Count:
    """A number that follows from how many channels take the place of each, quick to evaluate.

    Channels that lie along the same axes are counted together, so that a model is a few hundred small sums.

    Args:
        terms: What the number is the sum of; axes hold labels of channels.
        num_channels: How many labels there are.

    Example:

    >>> count = Count([Term(6, (np.array([0, 1]), np.array([2, 3, 4]))), Term(5, ())], num_channels=5)
    >>> count(np.array([1, 1, 1, 1, 1])), count(np.array([1, 0, 1, 1, 0]))
    (11, 7)
    """

    def __init__(self, terms: Iterable[Term], num_channels: int) -> None:
        axes: dict[bytes, int] = {}
        arrays: list[np.ndarray] = []
        products: dict[tuple[int, ...], float] = {}
        for term in terms:
            factors = []
            for axis in term.axes:
                factors.append(axes.setdefault(axis.tobytes(), len(axes)))
                if len(axes) > len(arrays):
                    arrays.append(axis)
            key = tuple(sorted(factors))
            products[key] = products.get(key, 0) + term.amount / math.prod(len(axis) for axis in term.axes)
        self._kind = _kinds(arrays, num_channels)
        self._on_axis = np.zeros((len(arrays) + 1, self._kind.max(initial=0) + 1))
        for number, axis in enumerate(arrays):
            kinds, first = np.unique(self._kind[axis], return_index=True)
            times = np.bincount(axis, minlength=num_channels)
            self._on_axis[number, kinds] = times[axis[first]]
        degree = max(map(len, products), default=0)
        self._factors = np.array([(*key, *[len(arrays)] * (degree - len(key))) for key in products], int)
        self._amounts = np.array([*products.values()], float)

    def __call__(self, counts: np.ndarray) -> int:
        """Return the number for so many channels in the place of each label."""
        return round(float(self._amounts @ self._sizes(counts)[self._factors].prod(axis=1)))

    def savings(self, groups: Sequence[np.ndarray]) -> "Savings":
        """Return what the number loses when channels of these groups go, from all channels on.

        Args:
            groups: The labels of each group.
        """
        sizes = self._sizes(np.ones(len(self._kind)))
        return Savings(sizes, [self._touched(labels) for labels in groups])

    def _sizes(self, counts: np.ndarray) -> np.ndarray:
        """The size of each axis, and 1 at the end, which stands where a product has fewer factors than others."""
        sizes = self._on_axis @ np.bincount(self._kind, weights=counts, minlength=self._on_axis.shape[1])
        sizes[-1] = 1.0
        return sizes

    def _touched(self, labels: np.ndarray) -> "Touched":
        kinds, kind_of = np.unique(self._kind[labels], return_inverse=True)
        lies_on = self._on_axis[:, kinds].T
        terms = np.any(lies_on[:, self._factors], axis=(0, 2))
        factors = self._factors[terms]
        return Touched(self._amounts[terms], factors, kind_of, lies_on, lies_on[:, factors])


@dataclass(frozen=True)
class Touched:
    """What channels of one group have a part in.

    Attributes:
        amounts: Of the products that they are a factor of, what each is multiplied by.
        factors: The numbers of the axes that are multiplied; an int array of shape (products, factors).
        kind_of: The kind of each channel of the group.
        on_axis: How often a channel of each kind lies along each axis; shape (kinds, axes).
        in_factors: The same for each factor; shape (kinds, products, factors).
    """

    amounts: np.ndarray
    factors: np.ndarray
    kind_of: np.ndarray
    on_axis: np.ndarray
    in_factors: np.ndarray


class Savings:
    """What a number loses when channels go, one after another; only the products that they touch are counted anew.

    Args:
        sizes: The size of each axis at the beginning.
        groups: What the channels of each group have a part in.

    Example:

    >>> count = Count([Term(6, (np.array([0, 1]), np.array([2, 3, 4]))), Term(5, ())], num_channels=5)
    >>> savings = count.savings([np.array([0, 1]), np.array([2, 3, 4])])
    >>> savings.of(1, [0])  # one of three columns of two
    2.0
    >>> savings.take(0, [1])
    >>> savings.of(1, [0])
    1.0
    """

    def __init__(self, sizes: np.ndarray, groups: Sequence[Touched]) -> None:
        self._sizes, self._groups = sizes, groups

    def of(self, group: int, channels: Sequence[int] | np.ndarray) -> float:
        """Return what would be saved if these channels of a group went too."""
        touched = self._groups[group]
        now = self._sizes[touched.factors]
        then = now - _sum_of(touched.in_factors, touched.kind_of[channels])
        saved = np.multiply.reduce(now, axis=1) - np.multiply.reduce(then, axis=1)
        return float(touched.amounts @ saved)

    def take(self, group: int, channels: Sequence[int] | np.ndarray) -> None:
        """Remove these channels of a group."""
        touched = self._groups[group]
        self._sizes = self._sizes - _sum_of(touched.on_axis, touched.kind_of[channels])


def _sum_of(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    return array[places[0]] if len(places) == 1 else array[places].sum(axis=0)


def _kinds(axes: list[np.ndarray], num_channels: int) -> np.ndarray:
    """Number the labels so that those with the same number lie along the same axes, equally often."""
    kind, known = np.zeros(num_channels, int), 1
    for axis in axes:
        labels, times = np.unique(axis, return_counts=True)
        _, new = np.unique(np.stack([kind[labels], times]), axis=1, return_inverse=True)
        kind[labels] = known + new.ravel()
        known += int(new.max()) + 1
    return np.unique(kind, return_inverse=True)[1]


class SizeCounter:
    """Counts a model for any widths; exactly what `tfprune.profile` finds when it is made.

    One exception errs to the safe side: where removed channels leave a constant, a layer without a bias is counted
    with the bias that `shrink` gives it, and needs none if the constant happens to be measured as zero.

    Args:
        model: A built Keras model.
        analysis: Its analysis.
        folds: Whether constants that removed channels leave behind become biases, as in `shrink`.
    """

    def __init__(self, model: keras.Model, analysis: Analysis, folds: bool = False) -> None:
        self._model, self._analysis, self._folds = functional(model), analysis, folds

    def __call__(self, counts: np.ndarray, names: Iterable[str]) -> dict[str, int]:
        """Return some sizes of the model.

        Args:
            counts: For each label of a channel, how many channels take its place; 0 for those that go.
            names: Of `"parameters"`, `"macs"` and `"weight_bytes"`, those that are asked for.

        Returns:
            The sizes by name; bytes are those of float32 weights.

        Raises:
            ValueError: If MACs are asked for and an input shape is not fixed.
        """
        found = {}
        for name in names:
            if name == "macs":
                found[name] = self._macs(counts)
            else:
                parameters = self._parameters(counts) + self._added_biases(counts)
                found[name] = 4 * parameters if name == "weight_bytes" else parameters
        return found

    def savings(self, name: str) -> Savings:
        """Return what the model saves when channels of its free groups go, from all channels on.

        Biases that take up constants are left out: they come with the first channel, and not with each.

        Args:
            name: `"macs"` or `"parameters"`.

        Raises:
            ValueError: As when it is called.
        """
        count = self._macs if name == "macs" else self._parameters
        return count.savings([group.labels for group in self._analysis.groups.free])

    @functools.cached_property
    def _macs(self) -> Count:
        sizes, analysis = ChannelSizes(self._analysis), self._analysis
        total = Polynomial(())
        for call in analysis.trace.calls:
            macs = multiply_accumulates(call.node, sizes)
            if call.repeats is None and macs:
                raise ValueError(
                    f"{call.layer.name!r} is called for an unknown number of time steps, so its cost is unknown. Build "
                    "the model with a fixed input shape."
                )
            total = total + macs * (call.repeats or 1)
        return Count(total.terms, analysis.trace.num_channels)

    @functools.cached_property
    def _parameters(self) -> Count:
        labels = self._analysis.labels
        terms = parameter_terms(self._model, self._analysis, lambda binding: labels[binding.channels])
        return Count(terms, self._analysis.trace.num_channels)

    def _added_biases(self, counts: np.ndarray) -> int:
        return sum(int(counts[made].sum()) for read, made in self._constants if not counts[read].all())

    @functools.cached_property
    def _constants(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For layers that may get a bias: the labels that are constant when they go, and those of the bias."""
        trace, labels, free = self._analysis.trace, self._analysis.labels, self._analysis.groups.free
        if not self._folds or all(call.zero_stays_zero for call in trace.calls):
            return []
        gone = np.concatenate([np.zeros(0, int), *(group.labels for group in free)])
        pairs = []
        for arrival in arrivals(trace, labels, self._analysis.alive(gone)):
            layer, read = arrival.call.layer, labels[arrival.binding.channels[arrival.level == CONSTANT]]
            read = read[np.isin(read, gone)]
            if read.size and arrival.call.folds_constants and getattr(layer, "bias", True) is None:
                made = trace.bindings[id(layer.kernel), len(layer.kernel.shape) - 1].channels
                pairs.append((read, labels[made]))
        return pairs
