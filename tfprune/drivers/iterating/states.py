"""The state of a training: weights, what the optimizer remembers, and its place in the schedule of the rate."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.training.masks import variables_by_path

RATE = "learning_rate"
_PLACE = ("iteration", RATE)
"""What of an optimizer's variables says how far it is, by their public names."""


@dataclass(frozen=True)
class State:
    """Weights and optimizer of a model at one moment.

    Attributes:
        weights: By path, trainable or not, with the statistics of BatchNormalization.
        optimizer: By name, see `optimizer_variables`; nothing if the model is not compiled.
    """

    weights: Mapping[str, np.ndarray]
    optimizer: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, model: keras.Model) -> "State":
        """Return the state of a model, as copies."""
        weights = {path: np.array(variable.numpy()) for path, variable in variables_by_path(model).items()}
        return cls(weights, {name: np.array(each.numpy()) for name, each in optimizer_variables(model).items()})

    def give(self, model: keras.Model) -> None:
        """Give a model of this form the state."""
        for path, variable in variables_by_path(model).items():
            variable.assign(self.weights[path])
        for name, variable in optimizer_variables(model).items():
            variable.assign(self.optimizer[name])


def optimizer_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the variables of a model's optimizer, which is built for it; none if the model is not compiled.

    Args:
        model: The model.

    Returns:
        By name, with a number where several have one name. Copies of the model have the same names.
    """
    if not model.compiled:
        return {}
    model.optimizer.build(model.trainable_variables)
    found: dict[str, keras.Variable] = {}
    for variable in model.optimizer.variables:
        name, number = variable.name, 1
        while name in found:
            number += 1
            name = f"{variable.name}#{number}"
        found[name] = variable
    return found


def joined(weights: State, slots: State, place: State) -> State:
    """Return a state from parts of others.

    Args:
        weights: Whose weights.
        slots: Whose memory of the optimizer, for each weight.
        place: Whose place in the schedule: the number of steps, and the rate itself where it is a variable.

    Returns:
        The state.
    """
    there = {name: value for name, value in place.optimizer.items() if name.split("#")[0] in _PLACE}
    return State(weights.weights, {**slots.optimizer, **there})
