"""What a model's outputs are: probabilities of classes, probabilities of yes, or numbers; read where they are made."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

Kind = Literal["softmax", "sigmoid", "linear"]

_SMALLEST = 1e-7
_MADE_BY: dict[str, Kind] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
_PASSED_ON = {"Cast", "ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose"}
_JOINED = {"ConcatV2", "Pack"}
_MEANT_BY: dict[str, Kind] = {
    "binarycrossentropy": "sigmoid",
    "binaryfocalcrossentropy": "sigmoid",
    "categoricalcrossentropy": "softmax",
    "categoricalfocalcrossentropy": "softmax",
    "kldivergence": "softmax",
    "sparsecategoricalcrossentropy": "softmax",
}


class Answer(NamedTuple):
    """A part of what a model answers.

    Attributes:
        kind: Whether `values` are the logits of classes (on the last axis), of yes or no, or plain numbers.
        values: A float32 tensor of shape (samples, ...).
        is_probability: Whether the output itself is probabilities, which come out of `values`.
    """

    kind: Kind
    values: Any
    is_probability: bool = False


def answers_of(model: keras.Model, outputs: Any) -> list[Answer]:
    """Return what a model answers, as logits where it answers probabilities.

    The operation that makes an output tells, also behind casts and reshapes. Of an output that comes out of another, as
    of a model that answers logits, the loss tells that the model was compiled with.

    Args:
        model: The model.
        outputs: What it returns, inside a `tf.function`.

    Returns:
        The answers; several for an output that is joined from several.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    >>> kinds = []
    >>> step = tf.function(lambda x: kinds.extend(each.kind for each in answers_of(model, model(x))))
    >>> step(tf.ones((1, 2))), kinds
    (None, ['softmax'])
    """
    return [answer for each in answers_by_output(model, outputs) for answer in each]


def answers_by_output(model: keras.Model, outputs: Any) -> list[list[Answer]]:
    """Return for each output what `answers_of` tells.

    Args:
        model: The model.
        outputs: What it returns, inside a `tf.function`.

    Returns:
        One list for each tensor, of one answer, or of those that it is joined from.
    """
    pairs = zip(keras.tree.flatten(outputs), losses_by_output(model, outputs), strict=True)
    found = [_behind(tensor) or [_as_compiled(tensor, loss)] for tensor, loss in pairs]
    return [[each._replace(values=tf.cast(each.values, tf.float32)) for each in made] for made in found]


def cooled(model: keras.Model, outputs: Any, temperature: float) -> Any:
    """Return what a model would answer if the logits behind its probabilities were divided by a temperature.

    Args:
        model: The model.
        outputs: What it returns, inside a `tf.function`.
        temperature: Above 0. Answers that are no probabilities stay as they are.

    Returns:
        Tensors in the structure of the outputs.
    """
    flat = keras.tree.flatten(outputs)
    pairs = zip(flat, losses_by_output(model, outputs), strict=True)
    return keras.tree.pack_sequence_as(outputs, [_cooled(tensor, loss, temperature) for tensor, loss in pairs])


def _cooled(tensor: Any, loss: Any, temperature: float) -> Any:
    made = _behind(tensor)
    kind, values, _ = made[0] if made else _as_compiled(tensor, loss)
    if kind == "linear":
        return tensor
    if values is tensor:  # logits
        return tensor / temperature
    likely = tf.clip_by_value(tensor, _SMALLEST, 1 - _SMALLEST)
    if kind == "softmax":
        return tf.nn.softmax(tf.math.log(likely) / temperature)
    return tf.sigmoid((tf.math.log(likely) - tf.math.log(1 - likely)) / temperature)


def _behind(tensor: Any) -> list[Answer]:
    """The logits that probabilities come out of; none if the tensor is something else."""
    operation = tensor.op
    if operation.type in _MADE_BY:
        return [Answer(_MADE_BY[operation.type], operation.inputs[0], is_probability=True)]
    if operation.type in _PASSED_ON:
        return _behind(operation.inputs[0])
    if operation.type in _JOINED:
        parts = [_behind(each) for each in operation.inputs if each.dtype.is_floating]
        return [each for part in parts for each in part] if all(parts) else []
    return []


def _as_compiled(tensor: Any, loss: Any) -> Answer:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    kind = _MEANT_BY.get(name.lower().replace("_", ""), "linear")
    if kind == "linear" or getattr(loss, "from_logits", False):
        return Answer(kind, tensor)
    likely = tf.clip_by_value(tf.cast(tensor, tf.float32), _SMALLEST, 1 - _SMALLEST)
    logits = tf.math.log(likely) - (tf.math.log(1 - likely) if kind == "sigmoid" else 0.0)
    return Answer(kind, logits, is_probability=True)


def losses_by_output(model: keras.Model, outputs: Any) -> list[Any]:
    """Return the loss that each output was compiled with; None where there is none.

    Args:
        model: The model.
        outputs: What it returns.
    """
    flat = keras.tree.flatten(outputs)
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        names = sorted(outputs) if isinstance(outputs, Mapping) else getattr(model, "output_names", [])
        return [loss.get(name) for name in names] if len(names) == len(flat) else [None] * len(flat)
    each = keras.tree.flatten(loss)
    return each if len(each) == len(flat) else [loss if len(each) == 1 else None] * len(flat)
