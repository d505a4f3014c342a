"""Steps that are compiled once for batches of any number of samples, as the last one is smaller."""

from typing import Any

import keras
import tensorflow as tf


def any_size(part: Any) -> Any:
    """Return the shapes and dtypes of a part of a batch, for any number of samples.

    Args:
        part: Arrays of shape (samples, ...) in any structure, or None.

    Returns:
        `tf.TensorSpec`s in the same structure: what `get_concrete_function` takes.

    Example:

    >>> any_size([tf.ones((4, 2)), None])
    [TensorSpec(shape=(None, 2), dtype=tf.float32, name=None), None]
    """

    def spec(array: Any) -> Any:
        return None if array is None else tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    return keras.tree.map_structure(spec, part)
