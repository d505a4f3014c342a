"""What counts as an array, and which part of a tuple or list is what."""

import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_TUPLES = "(x,), (x, y) or (x, y, sample_weight)"


def is_array(value: Any) -> bool:
    """Return whether a value is one array: of NumPy, a tensor, a data frame, or nested lists of numbers.

    Args:
        value: Anything.

    Returns:
        Whether it is an array.

    Example:

    >>> is_array(np.zeros(3)), is_array([[1, 2], [3, 4]]), is_array([np.zeros(3)]), is_array({"x": np.zeros(3)})
    (True, True, False, False)
    """
    if isinstance(value, list):
        return bool(value) and all(_is_number(each) or (isinstance(each, list) and is_array(each)) for each in value)
    return hasattr(value, "__array__") or isinstance(value, tf.RaggedTensor | tf.SparseTensor)


def as_array(value: Any, argument: str) -> np.ndarray:
    """Return one array as NumPy has it.

    Args:
        value: What `is_array` takes, or a number.
        argument: What the data is called, for the message.

    Returns:
        The array.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is ragged or sparse.
    """
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        how = "value.to_tensor()" if isinstance(value, tf.RaggedTensor) else "tf.sparse.to_dense(value)"
        raise ValueError(f"{argument} holds a {type(value).__name__}, and dense arrays are needed. Convert it: {how}.")
    if not is_array(value) and not _is_number(value):
        raise TypeError(
            f"Expected arrays in {argument}. Received: {type(value).__name__}. A dataset or generator is given alone: "
            f"what it yields is x, {_TUPLES}."
        )
    return np.asarray(value)


def as_arrays(structure: Any, argument: str) -> Any:
    """Return a structure (dicts, lists, tuples) with NumPy arrays in place of whatever arrays are in it."""
    if isinstance(structure, Mapping):
        return {key: as_arrays(value, argument) for key, value in structure.items()}
    if isinstance(structure, list | tuple) and not is_array(structure):
        return [as_arrays(value, argument) for value in structure]
    return None if structure is None else as_array(structure, argument)


def unpack(value: Any, num_inputs: int | None, argument: str) -> tuple[Any, Any, Any]:
    """Return `x`, `y` and `sample_weight` of what `fit` takes as a batch, or as all of the data.

    A tuple is `(x,)`, `(x, y)` or `(x, y, sample_weight)`, and so is a list, as in a `keras.utils.PyDataset`. But where
    a model has several inputs, one array cannot be `x`: as many arrays as there are inputs are then the inputs.

    Args:
        value: A batch.
        num_inputs: How many inputs the model has; None if it does not tell.
        argument: What the data is called, for the message.

    Returns:
        The three; `y` and `sample_weight` are None where there are none.

    Raises:
        ValueError: If a tuple has more parts.

    Example:

    >>> unpack(("x", "y"), 1, "data")
    ('x', 'y', None)
    >>> a = b = np.zeros(1)
    >>> len(unpack((a, b), 2, "data")[0]), len(unpack(((a, b), "y"), 2, "data")[0])
    (2, 2)
    """
    if not isinstance(value, list | tuple) or is_array(value):
        return value, None, None
    if len(value) == num_inputs and all(is_array(part) for part in value):
        return (value if num_inputs > 1 else value[0]), None, None
    if not 1 <= len(value) <= 3:
        raise ValueError(
            f"{argument} comes as x, {_TUPLES}, as for fit. Received: a {type(value).__name__} of {len(value)} parts."
        )
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(value))
    return x, y, sample_weight


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number | str | bytes)
