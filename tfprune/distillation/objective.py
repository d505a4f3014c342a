"""The teacher's part of a student's loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.distillation.hints import Widths, hint_loss
from tfprune.distillation.matching import matched
from tfprune.distillation.teachers import Teacher, read_answers
from tfprune.distillation.terms import Output, Term, spread, terms_of
from tfprune.rewriting.compiling import compile_arguments


@dataclass(frozen=True)
class Objective:
    """What a student loses by answering other than its teacher.

    Attributes:
        model: What the student is compiled as.
        teacher: What teaches.
        outputs: The outputs of the student, and those of the teacher.
        terms: The loss of each output.
        weights: Of the outputs, as the model is compiled with.
        widths: Those of the hints.
    """

    model: Any
    teacher: Teacher
    outputs: tuple[list[Output], list[Output]]
    terms: list[Term]
    weights: list[float]
    widths: Widths

    @classmethod
    def of(cls, model: Any, teacher: Teacher) -> "Objective":
        """Return the objective of a distilled model, or raise if the two models do not fit.

        Args:
            model: The distilled model.
            teacher: What teaches.
        """
        settings = model.settings
        found = matched(model, settings.features, teacher)
        given = spread("loss", settings.loss, [output.name for output in found.student])
        outputs = found.student, found.teacher
        if not model.compiled:
            return cls(model, teacher, outputs, [], [], found.widths)
        terms = terms_of(given, settings.temperature, *outputs, found.compiled)
        weights = spread(
            "loss_weights", compile_arguments(model).get("loss_weights"), [each.name for each in outputs[0]]
        )
        return cls(model, teacher, outputs, terms, [1.0 if each is None else each for each in weights], found.widths)

    def __call__(self, x: Any, y_pred: Any, hints: Sequence[Any], sample_weight: Any) -> Any:
        """Return the loss of a batch.

        Args:
            x: The inputs.
            y_pred: What the student has made of them.
            hints: What layers of the student have made of them.
            sample_weight: The weights of the samples, or for each output; or None.
        """
        self.teacher.start_step()
        answered, told = self.teacher.answer(x)
        own, other = ([output.heads for output in side] for side in self.outputs)
        answers = zip(self.teacher.answers(answered, other), read_answers(self.model, y_pred, own), strict=True)
        flat = zip(keras.tree.flatten(answered), keras.tree.flatten(y_pred), strict=True)
        samples = keras.tree.flatten(sample_weight)
        samples = samples if len(samples) == len(self.terms) else [sample_weight] * len(self.terms)
        total: Any = 0.0
        for weight, term, pair, behind, each in zip(self.weights, self.terms, flat, answers, samples, strict=True):
            total += weight * term(*pair, behind, each)
        if hints:
            per_sample = sample_weight if len(keras.tree.flatten(sample_weight)) == 1 else None
            projected = self.model.projections(list(hints))
            total += self.model.settings.feature_weight * hint_loss(projected, told, per_sample)
        return total
