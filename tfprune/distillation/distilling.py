"""From a student and a teacher to a model that is fitted as usual."""

import numbers
from typing import Any

import keras

from tfprune.common.checks import check_not_negative
from tfprune.distillation.distilled import Distilled, Settings
from tfprune.distillation.teachers import KerasTeacher
from tfprune.graph import check_built
from tfprune.rewriting.compiling import compile_like


def distill(
    student: keras.Model,
    teacher: keras.Model,
    *,
    loss: Any = None,
    temperature: float = 4.0,
    weight: float = 0.9,
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
        teacher: A built model with the same inputs and outputs, of any precision.
        loss: What the student learns the outputs by: None for what fits (soft targets for a softmax or sigmoid, the
            compiled loss for numbers), `"softmax"` or `"sigmoid"` for outputs that are logits, a Keras loss or function
            of the teacher's and the student's outputs as they are; or one for each output, in a list or dict.
        temperature: What the logits are divided by; above 0. Higher ones tell more of unlikely classes.
        weight: The part of the loss that comes from the teacher, in [0, 1].

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
    for role, model in (("student", student), ("teacher", teacher)):
        if isinstance(model, Distilled):
            raise ValueError(f"The {role} {model.name!r} is distilled already. Give tfprune.strip(model).")
        check_built(model)
    _check_training(student)
    _check_apart(student, teacher)
    if check_not_negative("temperature", temperature) == 0:
        raise ValueError("temperature must be above 0; 1 leaves logits as they are. Received: 0.")
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not 0 <= weight <= 1:
        raise ValueError(f"weight is the part that the teacher has in the loss, in [0, 1]. Received: {weight!r}.")
    with student.distribute_strategy.scope():
        model = Distilled(student, Settings(loss, float(temperature), float(weight)))
        compile_like(student, model)
        model.set_teacher(KerasTeacher(teacher))
    return model


_TRAINING = ("train_step", "test_step", "compute_loss", "compute_metrics")


def _check_training(student: keras.Model) -> None:
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
