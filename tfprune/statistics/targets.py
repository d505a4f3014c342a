"""What the loss is, for which gradients are gathered: the compiled one, or one that needs no labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from tfprune.common.checks import check_not_negative
from tfprune.statistics.answers import Answer, answers_of, cooled

Loss: TypeAlias = Literal["compiled", "sampled"] | Callable[[Any, Any], Any]
"""`"compiled"`: labels and the model's own loss; `"sampled"`: labels drawn from what the model answers; a function."""


class Target(ABC):
    """The loss of a batch, summed over its samples.

    Attributes:
        needs_labels: Whether the data has to have labels.
    """

    needs_labels: bool

    @abstractmethod
    def loss(self, x: Any, y: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the sum of the samples' losses, inside the compiled step.

        Args:
            x: The inputs of the batch.
            y: The labels of the batch, or None.
            outputs: What the model answers.
            sample_weight: The weights of the samples, or None.
        """


class SampledLabels(Target):
    """The log likelihood of labels that are drawn from what the model itself answers: the loss of Fisher information.

    The divergence to the model's own answer has a gradient of exactly zero, so labels are drawn instead. Of a softmax,
    one class; of a sigmoid, 0 or 1 for each number; of anything else, the answer with Gaussian noise of variance 1, as
    for regression. Logits count as what the loss that the model was compiled with makes of them (`from_logits=True`).

    Args:
        model: The model.
        temperature: What the logits of a softmax are divided by before classes are drawn. Above 1, more samples carry a
            gradient where the model is sure of nearly all.
        seed: Of the draws.

    Raises:
        ValueError: If `temperature` is not a number above 0.
    """

    needs_labels = False

    def __init__(self, model: keras.Model, temperature: float = 1.0, seed: int = 0) -> None:
        if check_not_negative("temperature", temperature) == 0:
            raise ValueError("temperature must be above 0; 1 draws from what the model answers. Received: 0.")
        self._model, self._temperature = model, temperature
        self._seeds = keras.random.SeedGenerator(seed)

    def loss(self, x: Any, y: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        losses = sum(self._losses(answer) for answer in answers_of(self._model, outputs))
        return tf.reduce_sum(losses if sample_weight is None else losses * _one_each(sample_weight))

    def _losses(self, answer: Answer) -> Any:
        """Draw labels, and return the losses of the samples: shape (samples,)."""
        values, seed = answer.values, self._seeds
        num_samples = tf.shape(values)[0]
        if answer.kind == "softmax":
            rows = tf.reshape(values, (-1, values.shape[-1]))
            drawn = keras.random.categorical(tf.stop_gradient(rows) / self._temperature, 1, seed=seed)
            labels = tf.one_hot(tf.reshape(drawn, (-1,)), rows.shape[-1])  # none where all is NaN, which is told later
            losses = tf.nn.softmax_cross_entropy_with_logits(labels, rows)
        elif answer.kind == "sigmoid":
            drawn = keras.random.binomial(tf.shape(values), 1, tf.sigmoid(tf.stop_gradient(values)), seed=seed)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(drawn, values)
        else:
            noise = keras.random.normal(tf.shape(values), seed=seed)
            losses = 0.5 * (values - tf.stop_gradient(values + noise)) ** 2
        return tf.reduce_sum(tf.reshape(losses, (num_samples, -1)), 1)


class CompiledLoss(Target):
    """The loss that the model was compiled with, of each sample alone, without penalties on weights and activations.

    What a `compute_loss` of the model's own returns for a sample alone counts as it is.

    Args:
        model: A compiled model.
        temperature: What the logits are divided by that probabilities come out of, before the loss sees them.

    Raises:
        ValueError: If it is not compiled with a loss.
    """

    needs_labels = True

    def __init__(self, model: keras.Model, temperature: float = 1.0) -> None:
        self._temperature = temperature
        self._is_own = type(model).compute_loss is not keras.Model.compute_loss
        if not getattr(model, "compiled", False) or (model.loss is None and not self._is_own):
            raise ValueError(
                f"The model {model.name!r} has no loss. Compile it: model.compile(loss=...); or use loss='sampled', "
                "which draws labels from what the model answers."
            )
        self._model = model

    def loss(self, x: Any, y: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        self._check_reduction(sample_weight)
        if self._temperature != 1:
            outputs = cooled(self._model, outputs, self._temperature)
        penalties = 0.0 if self._is_own else sum(self._model.losses)
        losses = per_sample(lambda *sample: self._model.compute_loss(*sample) - penalties, x, y, outputs, sample_weight)
        return tf.reduce_sum(losses)

    def _check_reduction(self, sample_weight: Any) -> None:
        reductions = {getattr(loss, "reduction", None) for loss in keras.tree.flatten(self._model.loss)}
        if sample_weight is not None and "mean_with_sample_weight" in reductions:
            raise ValueError(
                f"The loss of {self._model.name!r} has reduction='mean_with_sample_weight', so the weight of a single "
                "sample has no effect. Compile it with reduction='sum_over_batch_size', or leave the weights out."
            )


class OwnLoss(Target):
    """A function of the user's, from labels (or None) and answers to a loss.

    Args:
        function: `loss(y_true, y_pred)`. It sees one sample at a time, as a batch of one; of several numbers the mean
            counts.
    """

    needs_labels = False

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self._function = function

    def loss(self, x: Any, y: Any, outputs: Any, sample_weight: Any) -> Any:
        """Return the summed loss."""
        losses = per_sample(lambda *sample: tf.reduce_mean(self._function(*sample)), y, outputs)
        return tf.reduce_sum(losses if sample_weight is None else losses * _one_each(sample_weight))


def per_sample(function: Callable[..., Any], *parts: Any) -> Any:
    """Return what a function makes of each sample alone, as a batch of one: the loss of a sample, whatever the loss
    makes of a batch.

    Args:
        function: From as many parts to numbers, which are added up.
        *parts: Structures of tensors of shape (samples, ...), or None.

    Returns:
        One number per sample, shape (samples,).

    Example:

    >>> per_sample(tf.reduce_mean, tf.constant([[1.0, 2.0], [3.0, 5.0]])).numpy()
    array([1.5, 4. ], dtype=float32)
    """
    leaves = [tf.convert_to_tensor(leaf) for leaf in keras.tree.flatten(parts) if leaf is not None]
    notes = [{name: getattr(leaf, name) for name in _NOTES if getattr(leaf, name, None) is not None} for leaf in leaves]

    def of_one(rows: Any) -> Any:
        each = iter([_with_notes(*row) for row in rows])
        alone = [part if part is None else keras.tree.map_structure(lambda _: next(each), part) for part in parts]
        return tf.cast(tf.reduce_sum(function(*alone)), tf.float32)

    return tf.vectorized_map(of_one, list(zip(leaves, notes, strict=True)))


# Private: what Keras writes on tensors, so that masked steps do not count and probabilities are known as logits.
# tests/statistics/test_targets.py fails when it moves.
_NOTES = ("_keras_mask", "_keras_logits")


def _with_notes(leaf: Any, notes: dict[str, Any]) -> Any:
    alone = leaf[None]
    for name, note in notes.items():
        setattr(alone, name, note[None])
    return alone


def _one_each(sample_weight: Any) -> Any:
    """Return the weights of samples as a float32 vector, or raise if they are not one each."""
    weights = keras.tree.flatten(sample_weight)
    if len(weights) != 1 or any(size != 1 for size in weights[0].shape[1:]):
        shapes = [tuple(each.shape) for each in weights]
        raise ValueError(
            f"Other than one weight for each sample needs loss='compiled'. Received weights of the shapes {shapes}."
        )
    return tf.reshape(tf.cast(weights[0], tf.float32), (-1,))


def as_target(loss: Loss, model: keras.Model, temperature: float, seed: int) -> Target:
    """Return the target that an argument stands for.

    Args:
        loss: See `Loss`.
        model: The model.
        temperature: See `SampledLabels` and `CompiledLoss`.
        seed: Of what is drawn.

    Raises:
        TypeError: If it is neither a name nor a function.
        ValueError: If the name is unknown, or the model has no loss.
    """
    if loss == "compiled":
        return CompiledLoss(model, temperature)
    if loss == "sampled":
        return SampledLabels(model, temperature, seed)
    if isinstance(loss, str) or not callable(loss):
        raise TypeError(f"loss must be 'compiled', 'sampled' or a function of y_true and y_pred. Received: {loss!r}.")
    return OwnLoss(loss)
