"""What stands for labels where there are none."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfprune.data import Reader, inputs_of


def is_unlabelled(data: Any) -> bool:
    """Return whether data is arrays of inputs alone."""
    return isinstance(data, Mapping) or hasattr(data, "__array__")


def answers(model: keras.Model, x: Any) -> np.ndarray:
    """Return what a model says of inputs, in the form in which its compiled loss wants labels.

    Args:
        model: A compiled model with one output.
        x: An array of inputs, or a dict of them.

    Returns:
        For a loss of sparse labels the likeliest class, an int array; for one of classes, ones and zeros; else the
        outputs.
    """
    outputs = np.concatenate([np.asarray(model(batch.x, training=False)) for batch in Reader(x, inputs_of(model))])
    (given,) = keras.tree.flatten(model.loss)
    loss = keras.losses.get(given)
    name = str(getattr(loss, "name", None) or getattr(loss, "__name__", ""))
    if "categorical" in name:
        best = outputs.argmax(axis=-1)
        return best if "sparse" in name else np.eye(outputs.shape[-1], dtype="float32")[best]
    if "binary" in name:
        # Logits have their middle at 0, and probabilities theirs at a half.
        return (outputs > (0.0 if _from_logits(loss) else 0.5)).astype("float32")
    return outputs


def _from_logits(loss: Any) -> bool:
    return bool(loss.get_config().get("from_logits")) if isinstance(loss, keras.losses.Loss) else False
