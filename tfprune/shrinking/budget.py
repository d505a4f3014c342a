"""How large a model may be: limits, how models are measured against them, and how the largest within them is found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.graph.profiling import profile

COUNTED = ("parameters", "macs", "weight_bytes")
"""What of a budget can be counted from the widths of a float model."""


class OutOfReachError(ValueError):
    """Even the narrowest model that pruning can make is over the budget."""


@dataclass(frozen=True)
class Budget:
    """How large the pruned model may be; a fraction below 1 is relative to the model as it is.

    Attributes:
        parameters: Number of weights.
        macs: Multiply-accumulate operations for one sample.
        file_bytes: Size of the int8 file. Only `tfprune.compress`, which writes one, can measure it.
        latency: Median latency of the int8 file on this machine, always as a fraction of that of the dense model's
            int8 file. Only `tfprune.compress` can measure it.
        weight_bytes: Size of the float32 weights in bytes, four for each; a float `.tflite` is hardly larger.

    Example:

    >>> Budget(macs=0.5)
    Budget(parameters=None, macs=0.5, file_bytes=None, latency=None, weight_bytes=None)
    """

    parameters: float | None = None
    macs: float | None = None
    file_bytes: float | None = None
    latency: float | None = None
    weight_bytes: float | None = None

    def __post_init__(self) -> None:
        limits = self.limits()
        if not limits or not all(limit > 0 for limit in limits.values()):
            raise ValueError(
                "A budget needs at least one limit above 0, such as Budget(macs=0.5) for half the operations or "
                f"Budget(parameters=100_000). Received: {self}."
            )
        if self.latency is not None and self.latency >= 1:
            raise ValueError(
                "latency is a fraction of the dense int8 file's, below 1, as milliseconds differ from machine to "
                f"machine: Budget(latency=0.5) for twice as fast. Received: {self}."
            )

    def limits(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {name: limit for name, limit in vars(self).items() if limit is not None}

    def check_counted(self) -> None:
        """Raise if a limit cannot be counted without an int8 file."""
        instead = {
            "latency": "Give a limit on macs, which it follows from: Budget(macs=...)",
            "file_bytes": "Give a limit on the float32 weights, four bytes each: Budget(weight_bytes=...)",
        }
        for name, advice in instead.items():
            if name in self.limits():
                raise ValueError(
                    f"Only tfprune.compress measures {name}, as it writes the int8 file. {advice}. Received: {self}."
                )

    def absolute(self, dense: Mapping[str, float]) -> dict[str, float]:
        """Return the limits as numbers, given the sizes of the model of which those below 1 are fractions.

        Args:
            dense: Sizes of the model by name; what is not among them stays a fraction.

        Returns:
            The limits that are set.

        Example:

        >>> Budget(macs=0.5, parameters=100).absolute({"macs": 30, "parameters": 400})
        {'parameters': 100, 'macs': 15.0}
        """
        # 0.29 of 100 is 28.999999999999996, and 29 are meant.
        return {
            name: round(limit * dense[name], 6) if limit < 1 and name in dense else limit
            for name, limit in self.limits().items()
        }


def measure(model: keras.Model) -> dict[str, int]:
    """Return the sizes of a float model that a budget limits.

    Args:
        model: A built Keras model with a fixed input shape.

    Returns:
        Parameters, MACs for one sample, and the bytes of the weights in float32.

    Raises:
        ValueError: If its input shape is not fixed.

    Example:

    >>> measure(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    {'parameters': 15, 'macs': 12, 'weight_bytes': 60}
    """
    found = profile(model)
    return {"parameters": found.parameters, "macs": found.macs, "weight_bytes": 4 * found.parameters}


def load(sizes: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """Return how much of its limits a model uses: above 1 where it is too large.

    Args:
        sizes: Sizes by name.
        limits: Limits by name, each with a size.

    Returns:
        The largest ratio of a size to its limit.

    Example:

    >>> load({"macs": 30, "parameters": 10}, {"macs": 40, "parameters": 100})
    0.75
    """
    return max(sizes[name] / limit for name, limit in limits.items())


def search(load_of: Callable[[int], float], last: int, *, close: float = 1.0, tries: int = 1000) -> int | None:
    """Find the largest of the numbers from 0 to `last` that is within a limit, with few measurements.

    Each measurement is taken where a line through the two nearest ones comes close enough to the limit.

    Args:
        load_of: Measures one of the candidates, which grow with their number: at most 1 if it is within the limit.
        last: The number of the largest candidate.
        close: A load at which it is good enough.
        tries: How many measurements there may be besides the first two.

    Returns:
        The number; `None` if even the candidate 0 is too large.

    Example:

    >>> search(lambda number: number * number / 50, last=100)
    7
    """
    most = load_of(last)
    if most <= 1:
        return last
    least = load_of(0)
    if least > 1:
        return None
    low, high = 0, last
    while high - low > 1 and least < close and tries:
        share = ((1 + close) / 2 - least) / (most - least)
        middle = low + int((high - low) * min(max(share, 0.1), 0.9))
        middle = min(max(middle, low + 1), high - 1)
        value = load_of(middle)
        if value <= 1:
            low, least = middle, value
        else:
            high, most = middle, value
        tries -= 1
    return low


@dataclass(frozen=True)
class Steps:
    """In which order groups become wider, from the narrowest model on, one step of one group after another.

    Attributes:
        narrowest: The width of each group before the first step; an int array.
        groups: For each step, the number of the group; an int array.
        widths: For each step, how wide its group is afterwards; an int array.
    """

    narrowest: np.ndarray
    groups: np.ndarray
    widths: np.ndarray

    def after(self, count: int) -> np.ndarray:
        """Return the width of each group after the first steps."""
        widths = self.narrowest.copy()
        np.maximum.at(widths, self.groups[:count], self.widths[:count])
        return widths


def fill(steps: Steps, load_of: Callable[[np.ndarray], float], most_extra: int | None = None) -> np.ndarray | None:
    """Find widths that use as much of a budget as the order of the steps allows.

    All steps are taken that fit one after another; where one does not, its group stays as it is, and later steps of
    other groups may still fit.

    Args:
        steps: The order.
        load_of: How much of the budget a model with these widths uses: at most 1 if it fits.
        most_extra: How many of the later steps a group may take; `None` for all that fit.

    Returns:
        The width of each group; `None` if the narrowest model is too large.

    Example:

    >>> steps = Steps(np.array([1, 1]), np.array([0, 1, 0, 1]), np.array([2, 2, 3, 3]))
    >>> fill(steps, lambda widths: (2 * widths[0] + widths[1]) / 7)
    array([2, 3])
    """
    count = search(lambda number: load_of(steps.after(number)), len(steps.groups))
    if count is None:
        return None
    widths = steps.after(count)
    left = np.full(len(widths), len(steps.groups) if most_extra is None else most_extra)
    for group, width in zip(steps.groups[count:].tolist(), steps.widths[count:].tolist(), strict=True):
        if not left[group]:
            continue
        wider = widths.copy()
        wider[group] = width
        fits = load_of(wider) <= 1
        widths, left[group] = (wider, left[group] - 1) if fits else (widths, 0)
    return widths
