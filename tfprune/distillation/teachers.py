"""Who teaches: a Keras model that stays as it is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfprune.distillation.hints import heard
from tfprune.statistics.answers import Answer, Kind, answers_by_output
from tfprune.statistics.taps import tapped

Head = tuple[Kind, bool]
"""What an output is, and whether it is probabilities."""


class Teacher(ABC):
    """What teaches.

    It is an object of its own around a model, so that Keras does not take the model for a part of the one that is
    trained: neither its weights nor its file.
    """

    supports_jit = True
    """Whether XLA can compile a step with it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the teacher is called."""

    def start_step(self) -> None:  # noqa: B027, most do nothing
        """A training step begins, inside the compiled step."""

    @abstractmethod
    def answer(self, x: Any) -> tuple[Any, list[Any]]:
        """Return the outputs for a batch, and the hints."""

    @abstractmethod
    def answers(self, outputs: Any, heads: Sequence[Sequence[Head]]) -> list[list[Answer]]:
        """Return for each output what is behind it.

        Args:
            outputs: What `answer` has returned.
            heads: What the outputs are, as far as it is known from before.
        """


class KerasTeacher(Teacher):
    """A model that answers as at inference, and that no assignment reaches while it does.

    Args:
        model: A built Keras model.
        layers: Those whose outputs are hints, once for each.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.layers.Layer] = ()) -> None:
        self.model = model
        self._layers = list(layers)

    @property
    def name(self) -> str:
        """What the teacher is called."""
        return self.model.name

    def answer(self, x: Any) -> tuple[Any, list[Any]]:
        """Return the outputs for a batch, and the hints."""
        with keras.StatelessScope(), tapped(self._layers, watch=lambda tensor: None) as taps:
            outputs = self.model(x, training=False)
        return outputs, heard(taps, self._layers, self.name)

    def answers(self, outputs: Any, heads: Sequence[Sequence[Head]]) -> list[list[Answer]]:
        """Return for each output what is behind it."""
        return read_answers(self.model, outputs, heads)


def read_answers(model: keras.Model, outputs: Any, heads: Sequence[Sequence[Head]]) -> list[list[Answer]]:
    """Return for each output what is behind it: the logits themselves inside a `tf.function`.

    Args:
        model: The model.
        outputs: What it returns.
        heads: What they are, for eager tensors, which do not tell what made them.
    """
    flat = keras.tree.flatten(outputs)
    if any(hasattr(tensor, "numpy") for tensor in flat):
        return [[_answer(tensor, *parts[0])] for tensor, parts in zip(flat, heads, strict=True)]
    return answers_by_output(model, outputs)


def logits_of(kind: Kind, probabilities: Any) -> Any:
    """Return logits that probabilities may have come out of; a softmax leaves a constant open, which is 0 here.

    Args:
        kind: What made the probabilities.
        probabilities: Of shape (samples, ...).

    Returns:
        A float32 tensor; where a probability is zero, -85.

    Example:

    >>> logits_of("sigmoid", ops.array([0.5, 0.0])).numpy().round()
    array([  0., -85.], dtype=float32)
    """
    likely = ops.clip(ops.cast(probabilities, "float32"), _SMALLEST, _LARGEST)
    return ops.log(likely) - (ops.log1p(-likely) if kind == "sigmoid" else 0.0)


_SMALLEST, _LARGEST = 1e-37, 1 - 2.0**-24
"""What float32 has above 0 and below 1 without being slow or equal."""


def _answer(tensor: Any, kind: Kind, is_probability: bool) -> Answer:
    values = logits_of(kind, tensor) if is_probability else ops.cast(tensor, "float32")
    return Answer(kind, values, is_probability)
