"""A student with a teacher: a Keras model that is fitted as usual."""

import threading
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from tfprune.data.inputs import input_structure
from tfprune.distillation.averages import AveragedTeacher, Averages
from tfprune.distillation.hints import Pairs, Projections, Widths, heard
from tfprune.distillation.objective import Objective
from tfprune.distillation.teachers import Teacher
from tfprune.statistics.taps import tapped


@dataclass(frozen=True)
class Settings:
    """What `distill` was asked for.

    Attributes:
        loss: None, or what the user gave.
        temperature: Of the logits.
        weight: The part of the loss that comes from the teacher.
        features: The layers that hints pass between.
        feature_weight: Of the hints beside the outputs.
        momentum: Of the student's moving average, if that is the teacher.
    """

    loss: Any = None
    temperature: float = 4.0
    weight: float = 0.9
    features: Pairs = ()
    feature_weight: float = 1.0
    momentum: float | None = None


@keras.saving.register_keras_serializable("tfprune")
class Distilled(keras.Model):
    """A model that computes what its student computes, and whose `fit` trains it by its teacher; made by `distill`.

    Only the loss of a training step differs from the student's own, so whatever Keras and callbacks do around it stays.
    The teacher is no part of the model: it has no weights in it, and is in no file.

    Args:
        student: The model that is trained.
        settings: What by.
        widths: Those of the hints, where they are known.
        **kwargs: `name` of a Keras model.

    Example:

    >>> student, teacher = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]) for _ in range(2))
    >>> import tfprune
    >>> model = tfprune.distill(student, teacher)
    >>> type(model).__name__, len(model.weights) == len(student.weights)
    ('Distilled', True)
    """

    def __init__(self, student: keras.Model, settings: Settings, widths: Widths | None = None, **kwargs: Any) -> None:
        # Inputs go to the student as they come, which casts them as it always does.
        super().__init__(
            **{"name": f"{student.name}_distilled", "dtype": student.dtype_policy, **kwargs}, autocast=False
        )
        self.student = student
        self.settings = settings
        self.projections = None if widths is None else Projections(widths)
        self.averages = None if settings.momentum is None else Averages(student, settings.momentum)
        self._objective: Objective | None = None
        self._passed = threading.local()  # replicas run in threads
        self.built = True

    @property
    def inputs(self) -> Any:
        """The symbolic inputs of the student."""
        return getattr(self.student, "inputs", None)

    @property
    def input(self) -> Any:
        """The symbolic inputs of the student in the structure in which it takes them."""
        return input_structure(self.student)

    @property
    def output_names(self) -> list[str] | None:
        """The names of the student's outputs."""
        return getattr(self.student, "output_names", None)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return what the student computes."""
        symbolic = any(isinstance(each, keras.KerasTensor) for each in keras.tree.flatten(inputs))
        if symbolic or not (training and self.settings.features):
            return self.student(inputs, training=training)
        outputs, hints = self._run(inputs)
        self._passed.last = outputs, hints
        return outputs

    def set_teacher(self, teacher: Teacher) -> None:
        """Let another teacher teach; a model that was loaded has none.

        Args:
            teacher: The teacher.

        Raises:
            ValueError: If its outputs do not fit those of the student.
        """
        self._objective = Objective.of(self, teacher)
        if self.settings.features and self.projections is None:
            self.projections = Projections(self._objective.widths)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configure training, as of any Keras model; the loss is that of the labels."""
        super().compile(*args, **kwargs)
        if self._objective is not None:
            self.set_teacher(self._objective.teacher)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a file says; Keras leaves it to classes with a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the loss: the teacher's part and that of the labels in training, the labels' in evaluation."""
        weight = self.settings.weight if y is not None else 1.0
        if y is not None and (not training or weight == 0):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        taught = self._taught_loss(x, y_pred, sample_weight)
        if weight == 1:
            return taught + self._penalties()
        # The compiled loss comes with the penalties of the layers, which count in full.
        labelled = super().compute_loss(x, y, y_pred, sample_weight, training)
        return weight * (taught + self._penalties()) + (1 - weight) * labelled

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the metrics; without labels, only the loss."""
        if y is None:
            return {metric.name: metric.result() for metric in self.metrics if metric.name == "loss"}
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_metrics_result(self) -> Any:
        """Return the metrics so far; those of labels only where there have been any."""
        if all(getattr(metric, "built", True) for metric in self.metrics):
            return super().get_metrics_result()
        return {metric.name: metric.result() for metric in self.metrics if metric.name == "loss"}

    def get_config(self) -> dict[str, Any]:
        """Return what makes this model again, without its teacher."""
        kept = ("loss", "temperature", "weight", "feature_weight", "momentum")
        return {
            "name": self.name,
            "student": keras.saving.serialize_keras_object(self.student),
            "settings": {name: keras.saving.serialize_keras_object(getattr(self.settings, name)) for name in kept},
            "widths": None if self.projections is None else self.projections.widths,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Distilled":
        """Return a model without a teacher, or with its own average."""
        made = keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
        model = cls(made["student"], Settings(**made["settings"]), made["widths"], name=made["name"])
        if model.averages is not None and model.projections is None:
            model.set_teacher(AveragedTeacher(model, model.student, model.averages))
        return model

    def get_build_config(self) -> dict[str, Any]:
        """Return the shapes that the student was built with."""
        return self.student.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Leave building to the student."""

    def _penalties(self) -> Any:
        return sum((ops.sum(loss) for loss in self.losses), 0.0)

    def _taught_loss(self, x: Any, y_pred: Any, sample_weight: Any) -> Any:
        if self._objective is None:
            raise ValueError(
                f"{self.name!r} has no teacher, as no file has one. Take tfprune.strip(model), and give it to "
                "tfprune.distill again, or evaluate it as it is."
            )
        return self._objective(x, *self._forward(x, y_pred), sample_weight)

    def _run(self, x: Any) -> tuple[Any, list[Any]]:
        """The outputs and the hints of the student in training."""
        layers = [own for own, _ in self.settings.features]
        with tapped(layers, watch=lambda tensor: None) as taps:
            outputs = self.student(x, training=True)
        return outputs, heard(taps, layers, self.student.name)

    def _forward(self, x: Any, y_pred: Any) -> tuple[Any, list[Any]]:
        """The outputs, and the hints that were made with them."""
        first = keras.tree.flatten(y_pred)[0]
        last, self._passed.last = getattr(self._passed, "last", None), None
        if last is not None and keras.tree.flatten(last[0])[0] is first:
            return y_pred, last[1]
        # Where Keras builds a loss, it gives tensors that nothing has made.
        unmade = not hasattr(first, "numpy") and first.op.type == "Placeholder"
        if not (unmade or self.settings.features):
            return y_pred, []
        made, hints = self._run(x)
        return (made if unmade else y_pred), hints
