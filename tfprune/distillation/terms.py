"""Which loss each output has, and what it sees."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.distillation.losses import SoftTargets, as_loss
from tfprune.distillation.teachers import Head
from tfprune.statistics.answers import Answer

_ELEMENTWISE = {
    *("meansquarederror", "mse", "meanabsoluteerror", "mae", "huber", "logcosh", "cosinesimilarity"),
    *("meanabsolutepercentageerror", "mape", "meansquaredlogarithmicerror", "msle"),
}
"""Compiled losses that compare numbers with numbers, so that the teacher's may take the place of labels."""


@dataclass(frozen=True)
class Output:
    """One output of a model, as it is known before training.

    Attributes:
        name: What it is called.
        shape: Its shape with the batch.
        heads: What it is; several where it is joined from several.
    """

    name: str
    shape: tuple[int | None, ...]
    heads: tuple[Head, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its parts."""
        return tuple(kind for kind, _ in self.heads)


@dataclass(frozen=True)
class Term:
    """The loss of one output.

    Attributes:
        losses: One for each part; or the only one, of the outputs as they are.
        by_logits: Whether it sees the logits behind the outputs.
    """

    losses: tuple[keras.losses.Loss, ...]
    by_logits: bool

    def __call__(
        self, teacher: Any, student: Any, answers: tuple[list[Answer], list[Answer]], sample_weight: Any
    ) -> Any:
        """Return the loss of a batch."""
        if not self.by_logits:
            return self.losses[0](keras.ops.stop_gradient(teacher), student, sample_weight=sample_weight)
        total = 0.0
        for loss, wanted, answer in zip(self.losses, *answers, strict=True):
            # Private: where Keras keeps the mask of a tensor. tests/distillation/test_losses.py fails when it moves.
            mask = getattr(student, "_keras_mask", None)
            if mask is not None:
                answer.values._keras_mask = mask
            total += loss(keras.ops.stop_gradient(wanted.values), answer.values, sample_weight=sample_weight)
        return total


def terms_of(
    given: Any, temperature: float, student: Sequence[Output], teacher: Sequence[Output], compiled: Sequence[Any]
) -> list[Term]:
    """Return the loss of each output.

    Args:
        given: The user's `loss`, one for each output; None for what fits.
        temperature: Of the logits.
        student: Its outputs.
        teacher: Its outputs, as many.
        compiled: The losses that the student is compiled with, one for each output; None where there is none.

    Raises:
        ValueError: If no loss is given for an output of which nothing tells what it is, or one does not fit it.
    """
    return [_term(*each, temperature) for each in zip(given, student, teacher, compiled, strict=True)]


def _term(given: Any, student: Output, teacher: Output, compiled: Any, temperature: float) -> Term:
    if given in ("softmax", "sigmoid"):
        wrong = [each for each in (student, teacher) if {*each.kinds} - {given, "linear"}]
        if wrong:
            raise ValueError(
                f"loss={given!r} does not fit the output {wrong[0].name!r}, which comes out of a {wrong[0].kinds[0]}. "
                f"Leave loss out, or use {wrong[0].kinds[0]!r}."
            )
        return Term((SoftTargets(given, temperature),) * len(student.heads), by_logits=True)
    if given is not None:
        return Term((as_loss(given),), by_logits=False)
    if len(student.heads) != len(teacher.heads):
        raise ValueError(f"{_both(student, teacher)}: they are joined from different numbers of parts. Give loss=.")
    kinds = [_kind(*pair, student, teacher) for pair in zip(student.kinds, teacher.kinds, strict=True)]
    if "linear" not in kinds:
        return Term(tuple(SoftTargets(kind, temperature) for kind in kinds), by_logits=True)
    if _loss_name(compiled) not in _ELEMENTWISE:
        raise ValueError(
            f"Nothing tells what the output {student.name!r} is: it comes out of neither a softmax nor a sigmoid, and "
            f"the compiled loss is {'missing' if compiled is None else repr(_loss_name(compiled, plain=True))}. Say "
            "what it learns by: loss='softmax' or 'sigmoid' if these are logits, or a loss of numbers such as "
            "loss='mse'; or compile with a loss that tells, such as CategoricalCrossentropy(from_logits=True)."
        )
    return Term((as_loss(compiled),), by_logits=False)


def _kind(student: str, teacher: str, outputs: Output, others: Output) -> Any:
    if student == teacher:
        return student
    if "linear" not in (student, teacher):
        raise ValueError(
            f"{_both(outputs, others)}: one comes out of a {student}, the other out of a {teacher}. Give models whose "
            "outputs mean the same, or a loss= of both as they are, such as 'mse'."
        )
    kind, plain = (teacher, "student") if student == "linear" else (student, "teacher")
    warnings.warn(
        f"{_both(outputs, others)}: nothing tells what that of the {plain} is, so it counts as the logits of a {kind}, "
        f"as the other has one. Pass loss={kind!r} if that is so; compiled with from_logits=True, the {plain} tells.",
        stacklevel=2,
    )
    return kind


def _both(student: Output, teacher: Output) -> str:
    return f"The outputs {student.name!r} of the student and {teacher.name!r} of the teacher differ"


def _loss_name(loss: Any, plain: bool = False) -> str:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name if plain else name.lower().replace("_", "")


def spread(what: str, given: Any, names: Sequence[str]) -> list[Any]:
    """Return one item for each output.

    Args:
        what: What is given, for messages.
        given: One for all, or as many as there are outputs in a list, or in a dict by their names.
        names: What the outputs are called.

    Raises:
        ValueError: If names or numbers do not fit.
    """
    if isinstance(given, Mapping):
        unknown = [key for key in given if key not in names]
        if unknown:
            raise ValueError(f"{what} has the keys {list(given)}, but the student's outputs are {list(names)}.")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != len(names):
            raise ValueError(f"{what} has {len(given)} items, but the student has {len(names)} outputs: {list(names)}.")
        return list(given)
    return [given] * len(names)
