"""Random states that follow from a seed and a place in a run: a process that goes on draws what the first would."""

import keras
import numpy as np


def draw_seed(*place: int) -> int:
    """Return the seed of a place in a run.

    Args:
        place: Whole numbers of at least 0, such as a phase's seed and an epoch.

    Returns:
        A number from 0 to 2**31 - 1.

    Example:

    >>> draw_seed(1, 2) == draw_seed(1, 2) != draw_seed(1, 3)
    True
    """
    return int(np.random.default_rng(place).integers(2**31))


def seed_everything(seed: int, model: keras.Model | None = None) -> None:
    """Seed Python, NumPy and TensorFlow, and the generators that a model's layers hold.

    Those of layers such as `Dropout` are variables, but no weights: no file of Keras has them, so that a loaded model
    would draw something else.

    Args:
        seed: A number from 0 to 2**31 - 1.
        model: The model, or None.
    """
    keras.utils.set_random_seed(seed)
    # By the public name of the variable; tests/drivers/test_runs.py trains a Dropout layer and fails when it changes.
    states = [variable for variable in model.variables if variable.name == "seed_generator_state"] if model else []
    for index, state in enumerate(states):
        state.assign(np.array([draw_seed(seed, index), 0]))
