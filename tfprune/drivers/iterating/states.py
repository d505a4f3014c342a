"""The state of a training: weights, what the optimizer remembers, and its place in the schedule of the rate."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.training.masks import variables_by_path

_POSITION = ("iteration", "learning_rate")
"""What of an optimizer's variables says how far it is, by their public names."""


@dataclass(frozen=True)
class State:
    """Weights and optimizer of a model at one moment.

    Attributes:
        weights: By path, trainable or not, with the statistics of BatchNormalization.
        optimizer: The values of the optimizer's variables, in their order; none if the model is not compiled.
    """

    weights: Mapping[str, np.ndarray]
    optimizer: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, model: keras.Model) -> "State":
        """Return the state of a model, as copies."""
        weights = {path: np.array(variable.numpy()) for path, variable in variables_by_path(model).items()}
        return cls(weights, tuple(np.array(variable.numpy()) for variable in optimizer_variables(model)))

    def give(self, model: keras.Model) -> None:
        """Give a model of this form the state."""
        for path, variable in variables_by_path(model).items():
            variable.assign(self.weights[path])
        for variable, value in zip(optimizer_variables(model), self.optimizer, strict=True):
            variable.assign(value)


def optimizer_variables(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of a model's optimizer, which is built for it; none if the model is not compiled."""
    if not model.compiled:
        return []
    model.optimizer.build(model.trainable_variables)
    return list(model.optimizer.variables)


def joined(weights: State, slots: State, place: State, model: keras.Model) -> State:
    """Return a state from parts of others.

    Args:
        weights: Whose weights.
        slots: Whose memory of the optimizer, for each weight.
        place: Whose place in the schedule: the number of steps, and the rate itself where it is a variable.
        model: Says which variable is which.

    Returns:
        The state.
    """
    pairs = zip(optimizer_variables(model), slots.optimizer, place.optimizer, strict=True)
    return State(weights.weights, tuple(there if each.name in _POSITION else slot for each, slot, there in pairs))
