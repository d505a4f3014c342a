"""What the loss is, for which gradients are gathered: the compiled one, or one that needs no labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

Loss: TypeAlias = Literal["compiled", "sampled"] | Callable[[Any, Any], Any]
"""`"compiled"`: labels and the model's own loss; `"sampled"`: labels drawn from what the model answers; a function."""

_SMALLEST = 1e-7


class Target(ABC):
    """The loss of a batch, summed over its samples.

    Attributes:
        needs_labels: Whether the data has to have labels.
    """

    needs_labels: bool

    @abstractmethod
    def loss(self, outputs: Any, y: Any, sample_weight: Any) -> Any:
        """Return the sum of the samples' losses, inside the compiled step.

        Args:
            outputs: What the model answers.
            y: The labels of the batch, or None.
            sample_weight: The weights of the samples, or None.
        """


class SampledLabels(Target):
    """The log likelihood of labels that are drawn from what the model itself answers: the loss of Fisher information.

    The divergence to the model's own answer has a gradient of exactly zero, so labels are drawn instead. Of outputs
    that are a softmax, one class of each; of a sigmoid, 0 or 1 of each number; of anything else, the answer with
    Gaussian noise of variance 1, as for regression.

    Args:
        model: The model.
        temperature: What the logits of a softmax are divided by before classes are drawn. Above 1, more samples carry a
            gradient where the model is sure of nearly all.
        seed: Of the draws.
    """

    needs_labels = False

    def __init__(self, model: keras.Model, temperature: float = 1.0, seed: int = 0) -> None:
        self._kinds = [output_kind(tensor) for tensor in keras.tree.flatten(model.outputs)]
        self._temperature = temperature
        self._seeds = keras.random.SeedGenerator(seed)

    def loss(self, outputs: Any, y: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        flat = keras.tree.flatten(outputs)
        return sum(self._loss_of(tf.cast(each, tf.float32), kind) for each, kind in zip(flat, self._kinds, strict=True))

    def _loss_of(self, answer: Any, kind: str) -> Any:
        seed = self._seeds
        if kind == "softmax":
            logs = tf.math.log(tf.clip_by_value(answer, _SMALLEST, 1.0))
            flat = tf.reshape(logs, (-1, logs.shape[-1]))
            drawn = keras.random.categorical(tf.stop_gradient(flat) / self._temperature, 1, seed=seed)
            return -tf.reduce_sum(tf.gather(flat, drawn, batch_dims=1))
        if kind == "sigmoid":
            drawn = keras.random.binomial(tf.shape(answer), 1, tf.stop_gradient(answer), seed=seed)
            kept = tf.clip_by_value(answer, _SMALLEST, 1 - _SMALLEST)
            return -tf.reduce_sum(drawn * tf.math.log(kept) + (1 - drawn) * tf.math.log(1 - kept))
        noise = keras.random.normal(tf.shape(answer), seed=seed)
        return 0.5 * tf.reduce_sum((answer - tf.stop_gradient(answer + noise)) ** 2)


def output_kind(tensor: keras.KerasTensor) -> str:
    """Return `"softmax"` or `"sigmoid"` if that is what an output of a model comes out of, else `"linear"`.

    Example:

    >>> x = keras.Input((2,))
    >>> output_kind(keras.layers.Dense(3, activation="softmax")(x)), output_kind(keras.layers.Dense(3)(x))
    ('softmax', 'linear')
    """
    history = getattr(tensor, "_keras_history", None)
    operation = history.operation if history is not None else None
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", type(operation).__name__).lower()
    return name if name in ("softmax", "sigmoid") else "linear"


class CompiledLoss(Target):
    """The loss that the model was compiled with, without penalties on weights.

    Args:
        model: A compiled model.

    Raises:
        ValueError: If it is not compiled with a loss.
    """

    needs_labels = True

    def __init__(self, model: keras.Model) -> None:
        if not getattr(model, "compiled", False) or model.loss is None:
            raise ValueError(
                f"The model {model.name!r} has no loss. Compile it: model.compile(loss=...); or use loss='sampled', "
                "which draws labels from what the model answers."
            )
        self._model = model

    def loss(self, outputs: Any, y: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        mean = self._model.compute_loss(None, y, outputs, sample_weight) - sum(self._model.losses)
        return mean * tf.cast(tf.shape(keras.tree.flatten(outputs)[0])[0], mean.dtype)


class OwnLoss(Target):
    """A function of the user's, from labels (or None) and answers to one loss per sample.

    Args:
        function: `loss(y_true, y_pred)`.
    """

    needs_labels = False

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function

    def loss(self, outputs: Any, y: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        losses = self._function(y, outputs)
        return tf.reduce_sum(losses if sample_weight is None else losses * sample_weight)


def as_target(loss: Loss, model: keras.Model, temperature: float, seed: int) -> Target:
    """Return the target that an argument stands for.

    Args:
        loss: See `Loss`.
        model: The model.
        temperature: See `SampledLabels`.
        seed: Of what is drawn.

    Raises:
        TypeError: If it is neither a name nor a function.
        ValueError: If the name is unknown, or the model has no loss.
    """
    if loss == "compiled":
        return CompiledLoss(model)
    if loss == "sampled":
        return SampledLabels(model, temperature, seed)
    if isinstance(loss, str) or not callable(loss):
        raise TypeError(f"loss must be 'compiled', 'sampled' or a function of y_true and y_pred. Received: {loss!r}.")
    return OwnLoss(loss)
