"""What a model's outputs are worth as its weights are now: asked often, compiled once."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from tfprune.data import Batch
from tfprune.statistics.answers import Answer, answers_of
from tfprune.statistics.any_size import any_size
from tfprune.statistics.targets import CompiledLoss

EvaluationLoss = Literal["compiled", "divergence"]


class Evaluation:
    """The mean loss of a model over some samples, as its weights are when it is asked.

    Between the questions weights may be changed in place: nothing is traced again. The model runs as at inference.

    Args:
        model: A built Keras model.
        batches: The samples, which stay in memory.
        loss: `"compiled"`, the loss of labels that the model was compiled with; or `"divergence"` from what the model
            answers now, when this is made: the Kullback-Leibler divergence of probabilities, the mean squared error of
            other numbers.

    Raises:
        ValueError: If the model has no loss.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> evaluation = Evaluation(model, [Batch(keras.ops.ones((4, 2)).numpy())], "divergence")
    >>> kernel = model.layers[0].kernel
    >>> changed = kernel.assign(kernel + 1.0)
    >>> round(evaluation.loss(), 3)
    4.0
    """

    def __init__(self, model: keras.Model, batches: Sequence[Batch], loss: EvaluationLoss) -> None:
        self._model, self._batches = model, batches
        self._num_samples = sum(batch.num_samples for batch in batches)
        self._own: list[Any] = [None] * len(batches)
        self._target = CompiledLoss(model) if loss == "compiled" else None
        self._step = tf.function(self._summed, reduce_retracing=True, autograph=False)
        if loss == "divergence":
            answered = tf.function(self._answered, reduce_retracing=True, autograph=False)
            answered.get_concrete_function(any_size(batches[0].x))
            self._own = [answered(batch.x) for batch in batches]

    def loss(self) -> float:
        """Return the mean loss of the samples."""
        self._step.get_concrete_function(*map(any_size, (*self._batches[0], self._own[0])))
        sums = [
            float(self._step(batch.x, batch.y, batch.sample_weight, own))
            for batch, own in zip(self._batches, self._own, strict=True)
        ]
        return sum(sums) / self._num_samples

    def _answered(self, x: Any) -> list[Any]:
        return [answer.values for answer in answers_of(self._model, self._model(x, training=False))]

    def _summed(self, x: Any, y: Any, sample_weight: Any, own: Any) -> Any:
        outputs = self._model(x, training=False)
        if self._target is not None:
            return self._target.loss(x, y, outputs, sample_weight)
        pairs = zip(answers_of(self._model, outputs), own, strict=True)
        return sum(tf.reduce_sum(divergence(answer, before)) for answer, before in pairs)


def divergence(answer: Answer, before: Any) -> Any:
    """Return how far answers are from others, for each sample.

    Args:
        answer: What is answered now.
        before: What was answered: `values` of an answer of the same kind.

    Returns:
        For logits the mean divergence of the probabilities, in nats; for numbers the mean squared difference. Shape
        (samples,).

    Example:

    >>> one, other = tf.constant([[0.0, 1.0]]), tf.constant([[0.0, 3.0]])
    >>> divergence(Answer("linear", one), other).numpy().tolist()
    [2.0]
    """
    now = answer.values
    if answer.kind == "softmax":
        difference = tf.nn.log_softmax(before) - tf.nn.log_softmax(now)
        each = tf.reduce_sum(tf.nn.softmax(before) * difference, -1)
    elif answer.kind == "sigmoid":
        likely = tf.sigmoid(before)
        each = likely * (tf.math.log_sigmoid(before) - tf.math.log_sigmoid(now))
        each += (1 - likely) * (tf.math.log_sigmoid(-before) - tf.math.log_sigmoid(-now))
    else:
        each = (now - before) ** 2
    return tf.reduce_mean(tf.reshape(each, (tf.shape(each)[0], -1)), -1)
