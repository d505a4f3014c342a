"""What a student loses where it answers other than its teacher."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tfprune.statistics.answers import Kind


@keras.saving.register_keras_serializable("tfprune")
class SoftTargets(keras.losses.Loss):
    """The divergence from the teacher's probabilities to the student's, both softened: the loss of logit distillation.

    With logits `t` and `s`: `T^2 * KL(softmax(t / T) || softmax(s / T))` over the last axis, or of a sigmoid
    `T^2 * KL(sigmoid(t / T) || sigmoid(s / T))` as the mean over the last axis, as `BinaryCrossentropy` has it. The
    factor keeps gradients as large as those of labels, whatever the temperature. Hinton et al., "Distilling the
    Knowledge in a Neural Network", 2015.

    Args:
        kind: `"softmax"` or `"sigmoid"`: what makes probabilities out of the logits.
        temperature: What the logits are divided by; above 0.
        **kwargs: `name`, `reduction` and `dtype` of a Keras loss.

    Example:

    >>> loss = SoftTargets("softmax", temperature=2.0)
    >>> float(loss(ops.array([[2.0, 0.0]]), ops.array([[2.0, 0.0]])))
    0.0
    """

    def __init__(self, kind: Kind, temperature: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each sample, from the logits of the teacher and of the student."""
        teacher, student = y_true / self.temperature, y_pred / self.temperature
        if self.kind == "softmax":
            wanted = ops.log_softmax(teacher)
            divergence = ops.sum(ops.exp(wanted) * (wanted - ops.log_softmax(student)), axis=-1)
        else:
            cross_entropy, entropy = (ops.softplus(each) - ops.sigmoid(teacher) * each for each in (student, teacher))
            divergence = ops.mean(cross_entropy - entropy, axis=-1)
        return self.temperature**2 * divergence

    def get_config(self) -> dict[str, Any]:
        """Return what makes this loss again."""
        return {**super().get_config(), "kind": self.kind, "temperature": self.temperature}


class FunctionLoss(keras.losses.Loss):
    """A function of what the teacher answers and of what the student answers, as a loss: it may return any shape.

    Args:
        function: `loss(y_true, y_pred)`.
    """

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return what the function makes of both."""
        return self._function(y_true, y_pred)


def as_loss(loss: Any) -> keras.losses.Loss:
    """Return the loss that an argument stands for.

    Args:
        loss: A Keras loss, its name or config, or a function of `y_true` and `y_pred`.

    Example:

    >>> float(as_loss("mse")(ops.array([[2.0, 0.0]]), ops.array([[1.0, 0.0]])))
    0.5
    """
    found = keras.losses.get(loss)
    return found if isinstance(found, keras.losses.Loss) else FunctionLoss(found)
