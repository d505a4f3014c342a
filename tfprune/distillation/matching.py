"""What a student and its teacher return, found out before training, and whether the two fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfprune.data.inputs import input_structure
from tfprune.distillation.hints import Pairs, Widths, heard, widths_of
from tfprune.distillation.teachers import Teacher
from tfprune.distillation.terms import Output
from tfprune.graph.subclassed import first_line
from tfprune.statistics.answers import Answer, answers_by_output, losses_by_output
from tfprune.statistics.taps import tapped


@dataclass(frozen=True)
class Match:
    """A student and a teacher that fit.

    Attributes:
        student: The outputs of the student.
        teacher: As many of the teacher.
        compiled: The losses that the student's outputs are compiled with.
        widths: Those of the hints.
    """

    student: list[Output]
    teacher: list[Output]
    compiled: list[Any]
    widths: Widths


def matched(model: Any, features: Pairs, teacher: Teacher) -> Match:
    """Return what student and teacher return.

    Both are traced on symbolic tensors; nothing is computed.

    Args:
        model: The distilled model.
        features: The layers that hints pass between.
        teacher: What teaches.

    Raises:
        ValueError: If the teacher does not take what the student takes, or returns something else.
    """
    student, found = model.student, list[Any]()

    def trace(x: Any) -> None:
        layers = [own for own, _ in features]
        with keras.StatelessScope(), tapped(layers, watch=lambda tensor: None) as taps:
            returned = student(x, training=False)
        found.extend((returned, answers_by_output(model, returned), heard(taps, layers, student.name)))
        found.extend(_answer_of(teacher, student, x))

    tf.function(trace, autograph=False).get_concrete_function(_signature(student))
    returned, answers, own, answered, others, other = found
    _check_structure(student.name, returned, teacher.name, answered)
    names = output_names(student, returned)
    pair = _outputs(names, returned, answers), _outputs(names, answered, others)
    for each in zip(*pair, strict=True):
        _check_shapes(*each, student.name, teacher.name)
    return Match(*pair, losses_by_output(model, returned), widths_of(features, own, other))


def _answer_of(teacher: Teacher, student: keras.Model, x: Any) -> tuple[Any, Any, list[Any]]:
    """What the teacher returns, what is behind it, and the hints."""
    try:
        answered, told = teacher.answer(x)
    except (ValueError, TypeError) as error:
        if str(error).startswith("features"):
            raise
        raise ValueError(
            f"The teacher {teacher.name!r} cannot be called with the inputs of the student {student.name!r}: "
            f"{first_line(error)} Give a teacher of the same inputs; wrap one that needs others: "
            "keras.Model(inputs, teacher(prepared(inputs)))."
        ) from error
    return answered, teacher.answers(answered, ()), told


def _check_shapes(own: Output, other: Output, student: str, teacher: str) -> None:
    pairs = zip(own.shape[1:], other.shape[1:], strict=False)
    if len(own.shape) != len(other.shape) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(
            f"The output {own.name!r} of the student {student!r} has the shape {own.shape}, that of the teacher "
            f"{teacher!r} {other.shape}. They have to be alike: give a teacher of the same classes and sizes, or cut "
            "its outputs: keras.Model(teacher.inputs, part(teacher.output))."
        )


def output_names(model: keras.Model, returned: Any) -> list[str]:
    """Return what the outputs of a model are called, in the order of `keras.tree`.

    Args:
        model: The model.
        returned: What it returns.
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(returned)]
    names = getattr(model, "output_names", None) or []
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    if isinstance(returned, dict) or len(names) != len(paths):
        names = ["/".join(map(str, path)) or "output" for path in paths]
    return list(names)


def _signature(model: keras.Model) -> Any:
    if getattr(model, "inputs", None):
        return keras.tree.map_structure(
            lambda tensor: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype), input_structure(model)
        )
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        raise ValueError(
            f"The student {model.name!r} ({type(model).__name__}) does not tell the shapes that it was built with. "
            "Call it on a batch or build it with model.build(input_shape) first."
        )
    return keras.tree.map_shape_structure(lambda each: tf.TensorSpec((None, *each[1:]), keras.config.floatx()), shape)


def _outputs(names: Sequence[str], returned: Any, answers: Sequence[Sequence[Answer]]) -> list[Output]:
    heads = [tuple((each.kind, each.is_probability) for each in parts) for parts in answers]
    flat = zip(names, keras.tree.flatten(returned), heads, strict=True)
    return [Output(name, tuple(tensor.shape), each) for name, tensor, each in flat]


def _check_structure(student: str, returned: Any, teacher: str, answered: Any) -> None:
    flat = [keras.tree.flatten(each) for each in (returned, answered)]
    if len(flat[0]) == len(flat[1]) == 1:
        return
    own, other = ([path for path, _ in keras.tree.flatten_with_path(each)] for each in (returned, answered))
    if own != other:
        raise ValueError(
            f"The student {student!r} returns {_described(returned)}, the teacher {teacher!r} {_described(answered)}. "
            "Both have to return the same structure: wrap the teacher, "
            "keras.Model(teacher.inputs, {name: tensor, ...})."
        )


def _described(outputs: Any) -> str:
    if isinstance(outputs, dict):
        return f"a dict of {sorted(outputs)}"
    return f"{len(outputs)} outputs" if isinstance(outputs, (list, tuple)) else "one output"
