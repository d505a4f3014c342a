"""What a kind of pruning does in a round: choose, apply the choice, and bring a state to its form."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.drivers.iterating.states import State
from tfprune.training.masks import Masks

Choice = Mapping[str, np.ndarray]
"""What is left: one bool per weight, by the name of the kernel; or per channel, by the name of the group."""


@dataclass(frozen=True)
class Left:
    """How much is left.

    Attributes:
        count: Weights or channels that are left.
        total: Weights or channels that there were.
    """

    count: int
    total: int

    @property
    def density(self) -> float:
        """The fraction that is left."""
        return self.count / self.total


class Pruner(ABC):
    """A kind of pruning, on a model and its copies.

    Choices are of the whole, dense model, so that each says all that was pruned until then.
    """

    unit: str
    """What is counted: `"weights"` or `"channels"`."""
    in_place: bool
    """Whether a model keeps its form, and is pruned in place."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what functions and lists of layers stand for, in the user's model, as plain values."""

    @abstractmethod
    def whole(self) -> Choice:
        """Return the choice with which all is left."""

    @abstractmethod
    def choose(self, model: keras.Model, choice: Choice) -> Choice:
        """Return what is left after one more round.

        Args:
            model: The trained model of the round before.
            choice: What it has left.
        """

    @abstractmethod
    def apply(self, model: keras.Model, before: Choice, choice: Choice) -> keras.Model:
        """Return a model in which only what a choice has left is there: the same, changed in place, or a smaller one.

        Args:
            model: A model of the form that `before` has; its weights are of no importance.
            before: What it has left.
            choice: What is to be left.
        """

    @abstractmethod
    def cut(self, state: State, before: Choice, choice: Choice) -> State:
        """Return the part of a state that a choice has left.

        Args:
            state: The state of a model of the form that `before` has.
            before: What that model has left.
            choice: What is left.
        """

    @abstractmethod
    def mark(self, model: keras.Model, choice: Choice) -> None:
        """Write into a model of the form of a choice what is pruned, after its weights were set."""

    @abstractmethod
    def held(self, model: keras.Model, choice: Choice) -> Masks:
        """Return what has to be held at zero while a model of the form of a choice is trained, by variable path."""

    @abstractmethod
    def masks(self, choice: Choice) -> Masks:
        """Return a choice as masks on the dense model, by variable path."""

    @abstractmethod
    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Return what holds the masks in a `fit`."""

    def left(self, choice: Choice) -> Left:
        """Count what a choice leaves."""
        return Left(sum(int(each.sum()) for each in choice.values()), sum(each.size for each in choice.values()))
