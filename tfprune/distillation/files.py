"""A `.tflite` file as a teacher."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data.inputs import inputs_of
from tfprune.distillation.teachers import Head, Teacher, logits_of
from tfprune.statistics.answers import Answer, Kind
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import operator_name

_KINDS: dict[str, Kind] = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
_PASSED_ON = {"DEQUANTIZE", "QUANTIZE", "RESHAPE", "CAST"}


class FileTeacher(Teacher):
    """A file that runs sample by sample in Python, between the operators of the step: exact, and slow.

    Args:
        path: The file.
        student: The model that learns: inputs and outputs of the file go by its names.

    Raises:
        ValueError: If the inputs or outputs of the file are not those of the student.
    """

    supports_jit = False

    def __init__(self, path: str, student: keras.Model) -> None:
        self._path = path
        self._file = TFLiteModel(path)
        self._inputs = self._input_order(student)
        self._outputs = [details.name for details in self._file.outputs]
        self._by_name = isinstance(getattr(student, "output", None), Mapping)

    @property
    def name(self) -> str:
        """What the teacher is called."""
        return self._path

    def answer(self, x: Any) -> tuple[Any, list[Any]]:
        """Return the outputs for a batch as the student has them: in a dict, in a list, or alone."""
        flat = keras.tree.flatten(x)
        details = self._file.outputs
        made = tf.numpy_function(self._run, flat, [tf.float32] * len(details))
        for tensor, each in zip(made, details, strict=True):
            tensor.set_shape((flat[0].shape[0], *each.shape[1:]))
        if self._by_name:
            return dict(zip(self._outputs, made, strict=True)), []
        return (made[0] if len(made) == 1 else made), []

    def answers(self, outputs: Any, heads: Sequence[Sequence[Head]]) -> list[list[Answer]]:
        """Return for each output what is behind it: the operator in the file tells."""
        names = sorted(self._outputs) if isinstance(outputs, dict) else self._outputs
        return [
            [_answer(self._kind(name), tensor)] for name, tensor in zip(names, keras.tree.flatten(outputs), strict=True)
        ]

    def _run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        made = self._file.predict_by_name(dict(zip(self._inputs, arrays, strict=True)))
        return [np.asarray(made[name], np.float32) for name in self._outputs]

    def _input_order(self, student: keras.Model) -> list[str]:
        names = [details.name for details in self._file.inputs]
        wanted = [each.name for each in inputs_of(student).each or ()]
        if len(names) == 1 and len(wanted) <= 1:
            return names
        if set(wanted) != set(names):
            raise ValueError(
                f"The teacher {self._path!r} has the inputs {names}, the student {student.name!r} {wanted}. Export it "
                "from a model whose inputs are called the same."
            )
        return wanted

    def _kind(self, name: str) -> Kind:
        """What makes an output: the last operator that computes something."""
        model, graph = self._file.file.model, self._file.file.model.subgraphs[0]
        tensor = next(details.index for details in self._file.outputs if details.name == name)
        makers = {index: operator for operator in graph.operators for index in operator.outputs}
        while tensor in makers and operator_name(model, makers[tensor]) in _PASSED_ON:
            tensor = makers[tensor].inputs[0]
        return _KINDS.get(operator_name(model, makers[tensor]), "linear") if tensor in makers else "linear"


def _answer(kind: Kind, tensor: Any) -> Answer:
    return Answer(kind, tensor if kind == "linear" else logits_of(kind, tensor), kind != "linear")
