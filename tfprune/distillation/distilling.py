"""From a student and a teacher to a model that is fitted as usual."""

import numbers
import os
from collections.abc import Iterable
from typing import Any

import keras

from tfprune.common.checks import check_not_negative
from tfprune.distillation.averages import AveragedTeacher, MovingAverage
from tfprune.distillation.distilled import Distilled, Settings
from tfprune.distillation.files import FileTeacher
from tfprune.distillation.hints import Pairs, check_layers
from tfprune.distillation.teachers import KerasTeacher, Teacher
from tfprune.graph import check_built
from tfprune.rewriting.compiling import compile_like


def distill(
    student: keras.Model,
    teacher: keras.Model | MovingAverage | str | os.PathLike[str],
    *,
    loss: Any = None,
    temperature: float = 4.0,
    weight: float = 0.9,
    features: Pairs = (),
    feature_weight: float = 1.0,
) -> keras.Model:
    """Return a model that trains `student` by what `teacher` answers, besides labels or without any.

    A step of its `fit` runs the teacher, at inference, on the batch of the student. The loss is
    `weight * taught + (1 - weight) * labelled`, where `labelled` is the loss that the model is compiled with. Of
    probabilities and logits, `taught` is `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, whichever of the two
    ends in a softmax. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Data without labels (`fit(x)`) trains by the teacher alone, as does `weight=1`. Penalties on weights count in full.
    Callbacks act on the student, whose weights these are; `evaluate` and `predict` are the student's. The teacher is
    never changed and in no file: a distilled model that was loaded evaluates, and needs `distill` again to train on.

    Args:
        student: A built model: pruned, shrunk, with masks or quantize-aware. It is trained in place.
        teacher: A built model with the same inputs and outputs, of any precision; the path of a `.tflite` file, which
            runs sample by sample in Python; or a `MovingAverage` of the student itself.
        loss: What the student learns the outputs by: None for what fits (soft targets for a softmax or sigmoid, the
            compiled loss for numbers), `"softmax"` or `"sigmoid"` for outputs that are logits, a Keras loss or function
            of the teacher's and the student's outputs as they are; or one for each output, in a list or dict.
        temperature: What the logits are divided by; above 0. Higher ones tell more of unlikely classes.
        weight: The part of the loss that comes from the teacher, in [0, 1].
        features: Hints: pairs of a layer of the student and one of the teacher, of which it is to compute the outputs,
            in `taught` as mean squared differences. Where widths differ, a 1x1 convolution is learned between them.
            Romero et al., "FitNets", 2015.
        feature_weight: Of the hints beside the outputs, at least 0.

    Returns:
        A model to `fit`, compiled like the student if that is compiled, with a new optimizer. `tfprune.strip` returns
        the student.

    Raises:
        TypeError: If a model is no Keras 3 model.
        ValueError: If the outputs do not match, nothing tells what an output is, the two share weights, or an argument
            is out of range.

    Example:

    >>> import numpy as np
    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")])
    >>> student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> student.compile("sgd", "sparse_categorical_crossentropy")
    >>> model = distill(student, teacher, temperature=4, weight=0.9)
    >>> history = model.fit(np.ones((8, 4)), verbose=0)  # no labels
    """
    _check_student(student)
    pairs = _checked_pairs(features)
    settings = Settings(
        loss,
        _positive("temperature", temperature),
        _fraction("weight", weight),
        pairs,
        check_not_negative("feature_weight", feature_weight),
        teacher.momentum if isinstance(teacher, MovingAverage) else None,
    )
    check_layers("student", student, [own for own, _ in pairs])
    with student.distribute_strategy.scope():
        model = Distilled(student, settings)
        made = _teacher_of(model, teacher, [other for _, other in pairs])
        model.supports_jit = made.supports_jit
        compile_like(student, model)
        model.set_teacher(made)
    return model


def _teacher_of(model: Distilled, teacher: Any, layers: list[keras.layers.Layer]) -> Teacher:
    student = model.student
    if model.averages is not None:
        check_layers("student", student, layers)
        return AveragedTeacher(model, student, model.averages, layers)
    if isinstance(teacher, (str, os.PathLike)) and os.fspath(teacher).endswith(".tflite"):
        if layers:
            raise ValueError("features needs the layers of a Keras model, which a .tflite file does not have.")
        return FileTeacher(os.fspath(teacher), student)
    if isinstance(teacher, Distilled):
        raise ValueError(f"The teacher {teacher.name!r} is distilled itself. Give tfprune.strip(teacher).")
    check_built(teacher)
    check_layers("teacher", teacher, layers)
    _check_apart(student, teacher)
    return KerasTeacher(teacher, layers)


def _checked_pairs(features: Any) -> Pairs:
    given = features if isinstance(features, Iterable) else [features]
    pairs = [tuple(each) if isinstance(each, (list, tuple)) else (each,) for each in given]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            "features must be pairs of layer objects: [(layer of the student, layer of the teacher), ...]. "
            f"Received: {features!r}."
        )
    return pairs


def _positive(name: str, value: float) -> float:
    if check_not_negative(name, value) == 0:
        raise ValueError(f"{name} must be above 0; 1 leaves logits as they are. Received: 0.")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(f"{name} is the part that the teacher has in the loss, in [0, 1]. Received: {value!r}.")
    return float(value)


_TRAINING = ("train_step", "test_step", "compute_loss", "compute_metrics")


def _check_student(student: Any) -> None:
    if isinstance(student, Distilled):
        raise ValueError(f"The student {student.name!r} is distilled already. Give tfprune.strip(student).")
    check_built(student)
    own = [name for name in _TRAINING if getattr(type(student), name) is not getattr(keras.Model, name)]
    if own:
        raise ValueError(
            f"The student {student.name!r} ({type(student).__name__}) has its own {', '.join(own)}, which a distilled "
            "model does not call. Give the model inside it, or keras.Model(student.inputs, student.outputs)."
        )


def _check_apart(student: keras.Model, teacher: keras.Model) -> None:
    held = {id(variable) for variable in student.variables}
    shared = [variable.path for variable in teacher.variables if id(variable) in held]
    if shared:
        raise ValueError(
            f"The teacher shares weights with the student, such as {shared[0]!r}, so it would change with it. Copy it "
            "before you prune: teacher = keras.models.clone_model(model); teacher.set_weights(model.get_weights())."
        )
