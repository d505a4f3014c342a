"""The teacher's part of a student's loss."""

from dataclasses import dataclass
from typing import Any

import keras

from tfprune.distillation.matching import matched
from tfprune.distillation.teachers import Teacher, read_answers
from tfprune.distillation.terms import Output, Term, spread, terms_of


@dataclass(frozen=True)
class Objective:
    """What a student loses by answering other than its teacher.

    Attributes:
        model: What the student is compiled as.
        teacher: What teaches.
        outputs: The outputs of the student, and those of the teacher.
        terms: The loss of each output.
    """

    model: keras.Model
    teacher: Teacher
    outputs: tuple[list[Output], list[Output]]
    terms: list[Term]

    @classmethod
    def of(cls, model: Any, teacher: Teacher) -> "Objective":
        """Return the objective of a distilled model, or raise if the two models do not fit.

        Args:
            model: The distilled model.
            teacher: What teaches.
        """
        settings = model.settings
        student, others, compiled = matched(model, model.student, teacher)
        given = spread("loss", settings.loss, [output.name for output in student])
        terms = terms_of(given, settings.temperature, student, others, compiled) if model.compiled else []
        return cls(model, teacher, (student, others), terms)

    def __call__(self, x: Any, y_pred: Any, sample_weight: Any) -> Any:
        """Return the loss of a batch.

        Args:
            x: The inputs.
            y_pred: What the student has made of them.
            sample_weight: The weights of the samples, or for each output; or None.
        """
        answered = self.teacher.answer(x)[0]
        own, other = ([output.heads for output in side] for side in self.outputs)
        answers = zip(self.teacher.answers(answered, other), read_answers(self.model, y_pred, own), strict=True)
        flat = zip(keras.tree.flatten(answered), keras.tree.flatten(y_pred), strict=True)
        weights = keras.tree.flatten(sample_weight)
        weights = weights if len(weights) == len(self.terms) else [sample_weight] * len(self.terms)
        total: Any = 0.0
        for term, pair, behind, weight in zip(self.terms, flat, answers, weights, strict=True):
            total += term(*pair, behind, weight)
        return total
