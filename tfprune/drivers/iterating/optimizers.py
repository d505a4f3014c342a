"""The learning rate of an optimizer that keeps what it remembers."""

import keras

from tfprune.drivers.iterating.states import RATE, State
from tfprune.rewriting.compiling import compile_like


def make_constant(model: keras.Model, learning_rate: float, state: State) -> State:
    """Give a model an optimizer with a constant rate, and return a state in the form of its variables.

    Args:
        model: A compiled model.
        learning_rate: The rate.
        state: A state in the form of the optimizer that the model has now.

    Returns:
        The state, with the rate in it.
    """
    compile_like(model, model, learning_rate=learning_rate)
    new = State.of(model).optimizer
    rates = {name: value for name, value in new.items() if name.split("#")[0] == RATE}
    return State(state.weights, {**state.optimizer, **rates})


def last_rate(model: keras.Model, num_steps: int) -> float:
    """Return the rate with which a training ends.

    Args:
        model: A compiled model.
        num_steps: How many steps it takes.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # a LossScaleOptimizer has one inside
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        rate = keras.optimizers.schedules.deserialize(rate)(num_steps)
    return float(rate)
