"""How the cost of a model follows from the number of its channels: a sum of products, one for each kernel."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.graph import Analysis, multiply_accumulates
from tfprune.graph.record import Binding

Place = Callable[[Binding], np.ndarray]
"""Where the counts of the channels along one axis of a variable stand; -1 for channels that always count as one."""


@dataclass(frozen=True, eq=False)
class Term:
    """What one variable costs: proportional to how many channels stay along each of its axes.

    Attributes:
        amount: The cost when all channels are there.
        axes: For each axis that channels lie along, where their counts stand; int arrays.
    """

    amount: float
    axes: tuple[np.ndarray, ...]


def parameter_terms(model: keras.Model, analysis: Analysis, place: Place) -> list[Term]:
    """Return what the weights of a model count.

    Args:
        model: A built Keras model.
        analysis: Its analysis.
        place: Where the counts of channels stand.

    Returns:
        One term for each weight.
    """
    axes = _axes(analysis, place)
    weights = {id(weight): weight for weight in model.weights}
    return [Term(math.prod(weight.shape), tuple(axes.get(key, ()))) for key, weight in weights.items()]


def layer_macs(analysis: Analysis) -> dict[keras.layers.Layer, float]:
    """Return the multiply-accumulate operations of every layer, over all its calls.

    Args:
        analysis: The analysis of a model with a fixed input shape.

    Returns:
        MACs by layer.
    """
    found: dict[keras.layers.Layer, float] = {}
    for call in analysis.trace.calls:
        found[call.layer] = found.get(call.layer, 0) + multiply_accumulates(call.node)
    return found


def layer_terms(analysis: Analysis, costs: Mapping[keras.layers.Layer, float], place: Place) -> list[Term]:
    """Spread what layers cost over their kernels, by the kernels' sizes.

    For a layer with one kernel the cost is then `C * inputs * outputs`, exactly so for MACs; for a separable
    convolution it is the sum of both steps. The products of attention count with its projections.

    Args:
        analysis: The analysis of a model.
        costs: Cost by layer.
        place: Where the counts of channels stand.

    Returns:
        One term for each kernel, and one without axes for each layer whose kernels are not followed.
    """
    axes = _axes(analysis, place)
    kernels: dict[int, dict[int, keras.Variable]] = {}
    for binding in analysis.trace.bindings.values():
        if binding.role != "statistics" and binding.effect != "shift" and len(binding.variable.shape) > 1:
            kernels.setdefault(id(binding.layer), {})[id(binding.variable)] = binding.variable
    terms = []
    for layer, cost in costs.items():
        sizes = {key: math.prod(kernel.shape) for key, kernel in kernels.get(id(layer), {}).items()}
        total = sum(sizes.values())
        terms += [Term(cost * size / total, tuple(axes[key])) for key, size in sizes.items()]
        terms += [] if sizes else [Term(cost, ())]
    return [term for term in terms if term.amount]


def total_cost(terms: Sequence[Term], counts: np.ndarray) -> float:
    """Return the cost of a model with so many channels.

    Args:
        terms: What it is made of.
        counts: How many channels take the place of each; 1 for all gives the cost as it is.

    Returns:
        The cost.

    Example:

    >>> half = np.array([1.0, 0.0])
    >>> total_cost([Term(100.0, (np.array([0, 1]), np.array([-1, -1, -1])))], half)
    50.0
    """
    counts = np.append(counts, 1.0)  # -1 takes it
    return float(sum(term.amount * math.prod(counts[axis].mean() for axis in term.axes) for term in terms))


def marginal_costs(terms: Sequence[Term], counts: np.ndarray) -> np.ndarray:
    """Return how much cheaper the model is for each channel that goes, to first order.

    Args:
        terms: What it is made of.
        counts: How many channels take the place of each.

    Returns:
        The derivative of `total_cost` by each count.

    Example:

    >>> term = Term(100.0, (np.array([0, 1]), np.array([2, 3, 4, 5])))
    >>> marginal_costs([term], np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])).tolist()
    [25.0, 25.0, 25.0, 25.0, 25.0, 25.0]
    """
    padded = np.append(counts, 1.0)
    found = np.zeros(len(padded))
    for term in terms:
        means = [padded[axis].mean() for axis in term.axes]
        for number, axis in enumerate(term.axes):
            others = math.prod(means[:number] + means[number + 1 :])
            np.add.at(found, axis, term.amount * others / len(axis))
    return found[:-1]


def _axes(analysis: Analysis, place: Place) -> dict[int, list[np.ndarray]]:
    axes: dict[int, list[np.ndarray]] = {}
    for (variable, _), binding in analysis.trace.bindings.items():
        axes.setdefault(variable, []).append(place(binding))
    return axes
