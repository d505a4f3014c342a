"""The few values that the weights of a kernel share, while both train."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="tfprune")
class Codebook(keras.layers.Layer):
    """Replaces every weight of a kernel by the nearest of a few trained centroids.

    The gradient of a centroid is the sum of the gradients of its members. That of a weight passes unchanged, so that a
    weight can move from one centroid to another.

    Reference: Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained
    Quantization and Huffman Coding", ICLR 2016, https://arxiv.org/abs/1510.00149

    Args:
        values: How many centroids; without the zero that stays.
        channels: How many positions have centroids of their own.
        channel_axes: The axes of the kernel, negative, along which these positions lie; none for one set of centroids.
        keep_zeros: Whether weights that are zero stay so: they have no centroid, and no gradient.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        centroids: The trained variable, `(channels, values)`, float32, in any order.

    Example:

    >>> codebook = Codebook(2, keep_zeros=True)
    >>> codebook.centroids.assign([[1.0, -0.5]]).numpy().tolist()
    [[1.0, -0.5]]
    >>> codebook(ops.array([[0.0, 0.9], [2.2, -1.0]])).numpy().tolist()
    [[0.0, 1.0], [1.0, -0.5]]
    """

    def __init__(
        self,
        values: int,
        channels: int = 1,
        channel_axes: Sequence[int] = (),
        keep_zeros: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.values, self.channels, self.keep_zeros = values, channels, keep_zeros
        self.channel_axes = tuple(channel_axes)
        self.centroids = self.add_weight(shape=(channels, values), initializer="zeros", name="centroids")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Return the kernel of centroids.

        Args:
            inputs: A kernel, float32.

        Returns:
            A tensor of the same shape.
        """
        rank = len(inputs.shape)
        first = [axis % rank for axis in self.channel_axes]
        order = [*first, *(axis for axis in range(rank) if axis not in first)]
        moved = ops.transpose(inputs, order) if first else inputs
        rows = ops.reshape(moved, (self.channels, -1))
        made = ops.reshape(self._nearest(rows), moved.shape)
        return ops.transpose(made, [order.index(axis) for axis in range(rank)]) if first else made

    def _nearest(self, rows: Any) -> Any:
        @ops.custom_gradient
        def nearest(rows: Any, centroids: Any) -> Any:
            order = ops.argsort(centroids, axis=-1)
            ascending = ops.take_along_axis(centroids, order, axis=-1)
            middles = (ascending[:, :-1] + ascending[:, 1:]) / 2
            # Of TensorFlow: that of keras.ops takes one sorted sequence, and here each channel has its own.
            members = tf.searchsorted(middles, rows, side="left")
            shared = ops.take_along_axis(ascending, members, axis=-1)
            lives = rows != 0 if self.keep_zeros else ops.ones_like(rows, "bool")
            offsets = ops.cast(ops.arange(self.channels)[:, None] * self.values, members.dtype)

            def gradient(*args: Any, upstream: Any = None) -> Any:
                passed = args[0] if upstream is None else upstream
                passed = ops.where(lives, passed, ops.zeros_like(passed))
                owners = ops.take_along_axis(ops.cast(order, members.dtype), members, axis=-1) + offsets
                count = self.channels * self.values
                sums = ops.segment_sum(ops.reshape(passed, (-1,)), ops.reshape(owners, (-1,)), num_segments=count)
                return passed, ops.reshape(sums, centroids.shape)

            return ops.where(lives, shared, rows), gradient

        return nearest(rows, ops.reshape(self.centroids, (self.channels, self.values)))  # a tensor of what it holds

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the kernel."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"values": self.values, "channels": self.channels, "channel_axes": list(self.channel_axes)}
        return {**super().get_config(), **own, "keep_zeros": self.keep_zeros}
