"""A student as its own teacher: the moving average of its weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfprune.distillation.hints import heard
from tfprune.distillation.teachers import Head, Teacher, read_answers
from tfprune.statistics.answers import Answer
from tfprune.statistics.taps import tapped


class MovingAverage:
    """The student's own moving average, as a teacher for `tfprune.distill`.

    Each step moves the averages of all weights and statistics by `1 - momentum` towards what they are, and the student
    learns what the averaged model answers. Tarvainen and Valpola, "Mean teachers are better role models", 2017.

    Args:
        momentum: How much of the averages stays in a step, in (0, 1); 0.99 averages over some hundred steps.

    Raises:
        ValueError: If `momentum` is out of range.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> distilled = tfprune.distill(model, tfprune.MovingAverage(0.99), weight=0.5)
    """

    def __init__(self, momentum: float = 0.99) -> None:
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 < momentum < 1:
            raise ValueError(
                f"momentum is how much of the averages stays in a step, in (0, 1). Received: {momentum!r}."
            )
        self.momentum = float(momentum)


class Averages(keras.layers.Layer):
    """The moving averages of a model's weights; weights of this layer, so that a training that goes on has them.

    Args:
        model: A built model.
        momentum: See `MovingAverage`.
        **kwargs: `name` and others of a Keras layer.
    """

    def __init__(self, model: keras.Model, momentum: float, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self._momentum = momentum
        self._averages = [
            self.add_weight(
                each.shape,
                "zeros",
                each.dtype,
                trainable=False,
                name=f"average_{index}",
                aggregation="only_first_replica",
            )
            for index, each in enumerate(_averaged(model))
        ]
        self.built = True
        for _, average, value in self._pairs(model):
            average.assign(value)

    def follow(self, model: keras.Model) -> None:
        """Move the averages towards what the weights are now."""
        for _, average, value in self._pairs(model):
            average.assign(average + (1 - self._momentum) * (value - average))

    def in_place_of(self, variables: Sequence[keras.Variable], model: keras.Model) -> list[Any]:
        """Return the averages of variables, and the values of those that have none, such as a seed."""
        found = {id(variable): average for variable, average, _ in self._pairs(model)}
        return [found.get(id(variable), variable).value for variable in variables]

    def _pairs(self, model: keras.Model) -> list[tuple[keras.Variable, keras.Variable, Any]]:
        pairs = zip(_averaged(model), self._averages, strict=True)
        return [(variable, average, ops.convert_to_tensor(variable)) for variable, average in pairs]


class AveragedTeacher(Teacher):
    """The model that a student has been on average.

    Args:
        model: What the student is compiled as.
        student: The student.
        averages: Its averages.
        layers: Those whose outputs are hints.
    """

    def __init__(
        self,
        model: keras.Model,
        student: keras.Model,
        averages: Averages,
        layers: Sequence[keras.layers.Layer] = (),
    ) -> None:
        self._model, self._student, self._averages, self._layers = model, student, averages, list(layers)

    @property
    def name(self) -> str:
        """What the teacher is called."""
        return f"the moving average of {self._student.name}"

    def start_step(self) -> None:
        """Move the averages: the weights are those after the last update."""
        self._averages.follow(self._student)

    def answer(self, x: Any) -> tuple[Any, list[Any]]:
        """Return the outputs for a batch, and the hints."""
        trained, others = (
            self._averages.in_place_of(variables, self._student)
            for variables in (self._student.trainable_variables, self._student.non_trainable_variables)
        )
        with tapped(self._layers, watch=lambda tensor: None) as taps:
            outputs, _ = self._student.stateless_call(trained, others, x, training=False)
        return outputs, heard(taps, self._layers, self._student.name)

    def answers(self, outputs: Any, heads: Sequence[Sequence[Head]]) -> list[list[Answer]]:
        """Return for each output what is behind it."""
        return read_answers(self._model, outputs, heads)


def _averaged(model: keras.Model) -> list[keras.Variable]:
    return [variable for variable in model.variables if keras.backend.is_float_dtype(variable.dtype)]
