"""How far the output of a residual block is from its input, as directions."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import Batch
from tfprune.statistics.any_size import any_size
from tfprune.statistics.taps import Passed, Taps, tapped

_UNKNOWN = 0.5
"""The cosine where a vector is zero, as in the published code."""


def block_distances(
    model: keras.Model, batches: Iterable[Batch], blocks: Sequence[tuple[keras.layers.Layer, keras.layers.Layer]]
) -> np.ndarray:
    """Return how far the outputs of residual blocks are from their inputs.

    Reference: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect, 2024,
    https://arxiv.org/abs/2403.03853

    Args:
        model: A model.
        batches: Samples.
        blocks: For each block the layer through which its shortcut passes, and the layer through which its branch does;
            the sum of what they get is the output of the block.

    Returns:
        For each block the means over samples and positions of 1 - cosine, and of arccos(cosine) / pi; a float64 array
        of shape (blocks, 2).
    """
    layers = [layer for block in blocks for layer in block]

    @tf.function(reduce_retracing=True, autograph=False)
    def step(x: Any) -> tuple[Any, Any]:
        with tapped(layers, watch=lambda tensor: None) as taps:
            model(x, training=False)
        found = [_distances(block, taps) for block in blocks]
        return tf.stack([tf.reduce_sum(each, 1) for each in found]), tf.stack([tf.shape(each)[1] for each in found])

    sums, counts = np.zeros((len(blocks), 2)), np.zeros(len(blocks))
    for batch in batches:
        if not counts.any():
            step.get_concrete_function(any_size(batch.x))
        distances, count = step(batch.x)
        sums += distances.numpy()
        counts += count.numpy()
    return sums / counts[:, None]


def _distances(block: tuple[keras.layers.Layer, keras.layers.Layer], taps: Taps) -> Any:
    """The two distances at all positions of all calls of a block, as rows."""
    calls = zip(*(taps.of(layer) for layer in block), strict=True)
    return tf.concat([_of_call(*pair) for pair in calls], 1)


def _of_call(shortcut: Passed, branch: Passed) -> Any:
    before = tf.cast(shortcut.inputs[0], tf.float32)
    after = before + tf.cast(branch.inputs[0], tf.float32)
    # Sums of squares are multiplied in float64: in float32 the product of two small ones would vanish.
    products = [tf.cast(tf.reduce_sum(pair, -1), tf.float64) for pair in (before * after, before**2, after**2)]
    lengths = tf.sqrt(products[1] * products[2])
    is_zero = lengths == 0  # NaN stays NaN: the weights are broken
    cosine = tf.where(is_zero, tf.constant(_UNKNOWN, lengths.dtype), products[0] / lengths)
    cosine = tf.reshape(tf.clip_by_value(cosine, -1.0, 1.0), (-1,))
    return tf.stack([1.0 - cosine, tf.acos(cosine) / np.pi])
