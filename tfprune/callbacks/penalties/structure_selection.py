"""Sparse structure selection: factors that scale blocks or channels, trained until some are zero."""

import threading
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfprune.callbacks.penalties.base import SparsityRegularization
from tfprune.graph import ChannelGroup
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.layers import scaling_factors
from tfprune.parts.structures import Structure, along
from tfprune.schedules import ScheduleLike
from tfprune.training.optimizers import optimizer_parts, updating_optimizers
from tfprune.training.proximal import soft_threshold
from tfprune.training.step import Gradients, Weight


class SparseStructureSelection(SparsityRegularization):
    """Train the scaling factors of a model with an L1 penalty: those of needless blocks or channels become zero.

    The factors are those of the `ScalingFactor` layers that `tfprune.layers.with_scaling_factors` puts into a model.
    In every training step each is updated by the accelerated proximal gradient of the paper instead of the model's
    optimizer, from the gradient g of the batch, the optimizer's learning rate e and a momentum v of its own:

        z = soft_threshold(factor - e * g, e * strength)
        v = z - factor + momentum * v
        factor = max(0, z + momentum * v)

    A factor can come back from zero as long as training goes on. Afterwards `tfprune.shrink` removes the blocks and
    channels whose factor is zero, and folds the other factors into weights: a plain Keras model that computes the
    same.

    The epoch logs receive `regularization_loss` (strength times the sum of the factors),
    `channels_below_threshold` (how many factors are zero) and `removed_blocks` (how many of them belong to a whole
    tensor).

    Reference: Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
    https://arxiv.org/abs/1707.01213

    Args:
        strength: The weight of the L1 penalty, a number of at least 0, a function from the step to it, or a
            schedule. The paper selects the blocks of a ResNet-50 at 0.01.
        momentum: How much of its velocity a factor keeps from step to step, in [0, 1).
        min_channels: How many factors of every layer with one per channel stay above zero. A block may go as a whole.
        exclude: Scaling factors to leave to the model's optimizer: a list of layer objects, or a function from a layer
            to bool.

    Raises:
        ValueError: If an argument is out of range; when `fit` starts, if the model has no scaling factor that is
            trained, or its optimizer accumulates gradients over several steps.

    Example:

    >>> from tfprune.layers import with_scaling_factors
    >>> inputs = keras.Input((4,))
    >>> useless = keras.layers.Dense(4, kernel_initializer="zeros", trainable=False)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, useless]))
    >>> model.compile(keras.optimizers.SGD(0.1), "mse")
    >>> scaled = with_scaling_factors(model)
    >>> x, callback = np.ones((3, 4), "float32"), SparseStructureSelection(1.0, momentum=0.5)
    >>> history = scaled.fit(x, x, batch_size=1, verbose=0, callbacks=[callback])
    >>> round(float(scaled.get_layer("add_factor").factor.numpy()), 4)  # 1 - 0.15 - 0.175 - 0.1875
    0.4875
    """

    def __init__(
        self,
        strength: ScheduleLike,
        *,
        momentum: float = 0.9,
        min_channels: int = 1,
        exclude: Exclude = None,
    ) -> None:
        super().__init__(strength, 0.0, min_channels, exclude)
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise ValueError(f"momentum must be a number in [0, 1). Received: {momentum!r}.")
        self.momentum = float(momentum)
        self._velocities: dict[str, keras.Variable] = {}
        self._taken: Any = None

    def why_not_narrower(self) -> str:
        """Return why training cannot go on in smaller models."""
        return "a factor that is zero can come back, and the others are folded into weights when it leaves"

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the factors; errors come here, before time is spent."""
        parts = [part for optimizer in updating_optimizers(self.model) for part in optimizer_parts(optimizer)]
        if any(part.gradient_accumulation_steps for part in parts):
            raise ValueError(
                "SparseStructureSelection updates its factors in every step, but the optimizer accumulates gradients "
                "over several. Compile the model without gradient_accumulation_steps."
            )
        super().on_train_begin(logs)
        with self.model.distribute_strategy.scope():
            self._velocities = {
                factor.path: keras.Variable(
                    np.zeros(factor.shape),
                    dtype="float32",
                    trainable=False,
                    name=factor.path.replace("/", "_") + "_velocity",
                )
                for factor in self._factors()
            }
        self._taken = threading.local()  # replicas run in threads; made here, as it cannot be copied
        self._all_gone = False

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the optimizer go, and make dead parts zero throughout."""
        super().on_train_end(logs)
        self._taken = None

    def find_structures(self, groups: Sequence[ChannelGroup]) -> Sequence[Structure]:
        """Return one structure for each layer of factors."""
        excluded = resolve_exclude(self.model, self.exclude)
        found = [layer for layer in scaling_factors(self.model) if layer.trainable and not excluded(layer)]
        if not found:
            raise ValueError(
                f"{self.model.name!r} has no ScalingFactor layer that is trained. Train the model that "
                "tfprune.layers.with_scaling_factors(model) returns, or put ScalingFactor layers in yourself."
            )
        return [along(layer.name, layer.factor, axes=range(len(layer.factor.shape))) for layer in found]

    def pull_gradients(self, gradients: Gradients, strength: Any) -> Gradients:
        """Take the gradients of the factors away from the optimizer."""
        factors = [factor for factor in self._factors() if factor.path in gradients]
        scale = self.optimizer.loss_scale_factor or 1.0
        taken = [ops.cast(gradients[factor.path], "float32") / scale for factor in factors]
        context = tf.distribute.get_replica_context()
        if factors and context.num_replicas_in_sync > 1:
            taken = context.all_reduce(tf.distribute.ReduceOp.SUM, taken)
        # The optimizer may decay these. Without tf.identity, the value would be read only where it is used, after that.
        self._taken.values = [
            (f, tf.identity(ops.convert_to_tensor(f)), g) for f, g in zip(factors, taken, strict=True)
        ]
        return {factor.path: ops.zeros_like(gradients[factor.path]) for factor in factors}

    def pull_weights(self, weight: Weight, rate: Any, strength: Any) -> Sequence[tuple[keras.Variable, Any]]:
        """Make one step of the accelerated proximal gradient."""
        updated: list[tuple[keras.Variable, Any]] = []
        for factor, value, gradient in self._taken.values:
            velocity = self._velocities[factor.path]
            new, moved = accelerated_proximal_step(
                ops.cast(value, "float32"), gradient, weight(velocity), rate, strength, self.momentum
            )
            if len(factor.shape):
                stays = ops.cast(_stays(new, ops.cast(value, "float32"), self.min_channels), "bool")
                held = ops.logical_and(stays, new <= 0)
                new = ops.where(held, ops.cast(value, "float32"), new)
                moved = ops.where(held, ops.zeros_like(moved), moved)
            updated += [(factor, ops.cast(new, factor.dtype)), (velocity, moved)]
        return updated

    def dead(self) -> dict[Structure, np.ndarray]:
        """Return which factors are zero; a block may vanish."""
        return {
            structure: parts if structure.slices[0].axes else structure.slices[0].variable.numpy().reshape(1) == 0
            for structure, parts in super().dead().items()
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log how many blocks are gone, too, and warn when no block is left."""
        super().on_epoch_end(epoch, logs)
        gone = [bool(parts[0]) for structure, parts in self.dead().items() if not structure.slices[0].axes]
        if logs is not None:
            logs["removed_blocks"] = sum(gone)
        if gone and all(gone) and not self._all_gone:
            self._all_gone = True
            warnings.warn(
                f"SparseStructureSelection has set the factors of all {len(gone)} blocks to zero. Lower the strength, "
                "or exclude the blocks that must stay.",
                stacklevel=2,
            )

    def _factors(self) -> list[keras.Variable]:
        return [structure.slices[0].variable for structure in self.structures]


def accelerated_proximal_step(
    factor: Any, gradient: Any, velocity: Any, learning_rate: Any, strength: Any, momentum: float
) -> tuple[Any, Any]:
    """Make one step of the accelerated proximal gradient method with an L1 penalty, for factors of at least 0.

    Reference: Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
    https://arxiv.org/abs/1707.01213, equations 10 to 12

    Args:
        factor: A float tensor.
        gradient: The gradient of the loss, without the penalty.
        velocity: Of the step before; 0 in the first.
        learning_rate: A scalar.
        strength: The weight of the penalty; a scalar.
        momentum: In [0, 1).

    Returns:
        The factor and velocity after the step.

    Example:

    >>> factor, velocity = accelerated_proximal_step(ops.array(1.0), ops.array(1.0), ops.array(0.0), 0.25, 1.0, 0.5)
    >>> float(factor), float(velocity)
    (0.25, -0.5)
    """
    near = soft_threshold(factor - learning_rate * gradient, learning_rate * strength)
    velocity = near - factor + momentum * velocity
    return ops.relu(near + momentum * velocity), velocity


def _stays(new: Any, old: Any, count: int) -> Any:
    """Return 1 for the `count` factors that stay: the largest of those that are not zero, then those that were not."""
    order = ops.where(new > 0, new + ops.max(old) + 1.0, old)
    largest = ops.top_k(order, min(count, new.shape[0])).indices
    return ops.max(ops.one_hot(largest, new.shape[0], dtype="float32"), axis=0)
