"""The masks of a model as images in TensorBoard."""

import importlib.util
import math
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.common.checks import check_count
from tfprune.graph.exclude import Exclude
from tfprune.parts.kernels import Kernel, kernels
from tfprune.training.masks import living_weights

_RUN = "masks"
"""TensorBoard reads only the newest file of a run while it is written, so images go beside `train`, not into it."""


class MaskImages(keras.callbacks.Callback):
    """Write which weights are alive as images, one per kernel, where the user's `TensorBoard` callback writes.

    Living weights are white and pruned ones black. An output channel is a column, and the weights that it sums over
    are its rows, so a pruned filter is a black column. In an image of a kernel with more rows or columns than
    `max_size`, a pixel stands for several weights, and its brightness for how many of them are alive.

    TensorBoard shows the images as `mask/<name of the kernel>` in a run called `masks`, beside `train` and
    `validation`. Put it after the callback that prunes. It only looks, and works beside every callback of tfprune.

    Args:
        tensorboard: The `keras.callbacks.TensorBoard` of the same `fit`.
        every: Write after every this many epochs, and after the last; once more if training ends with a pruning.
        max_size: The largest number of pixels along a side.
        exclude: Layers to leave out: a list of layer objects, or a function from a layer to bool.

    Raises:
        TypeError: If `tensorboard` is no `keras.callbacks.TensorBoard`.
        ValueError: If a number is too small; when `fit` starts, if `tensorboard` is not among its callbacks, or there
            is no trainable layer with a kernel.
        ImportError: When `fit` starts, if TensorBoard is not installed.

    Example:

    >>> import tempfile
    >>> from tfprune.callbacks import FPGM
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> board = keras.callbacks.TensorBoard(tempfile.mkdtemp())
    >>> callbacks = [FPGM(0.5), board, MaskImages(board)]
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=callbacks)
    >>> sorted(os.listdir(board.log_dir))
    ['masks', 'train']
    """

    def __init__(
        self,
        tensorboard: keras.callbacks.TensorBoard,
        *,
        every: int = 1,
        max_size: int = 256,
        exclude: Exclude = None,
    ) -> None:
        super().__init__()
        if not isinstance(tensorboard, keras.callbacks.TensorBoard):
            raise TypeError(
                "MaskImages writes where your TensorBoard callback writes: make board = keras.callbacks.TensorBoard"
                f'("logs"), and pass callbacks=[..., board, MaskImages(board)]. Received: {tensorboard!r}.'
            )
        self.tensorboard, self.exclude = tensorboard, exclude
        self.every, self.max_size = check_count("every", every), check_count("max_size", max_size)
        self._kernels: tuple[Kernel, ...] = ()
        self._writer: Any = None
        self._epoch: int | None = None
        self._written: int | None = None
        self._seen: list[np.ndarray] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the kernels, and open the file; errors come here, before time is spent."""
        # `fit` hands the same dict to all of its callbacks.
        if self.tensorboard.params is not self.params or self.tensorboard.model is not self.model:
            raise ValueError(
                "The TensorBoard callback that MaskImages was given is not among the callbacks of this fit. "
                "Pass both: callbacks=[..., board, MaskImages(board)]."
            )
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("Images of masks need TensorBoard. Install it: `pip install tensorboard`.")
        self._kernels = kernels(self.model, self.exclude)
        if not self._kernels:
            raise ValueError(
                f"MaskImages finds nothing to show in {self.model.name!r}: it has no trainable layer with a kernel "
                "that is not excluded."
            )
        self._epoch = self._written = None
        self._writer = tf.summary.create_file_writer(os.path.join(self.tensorboard.log_dir, _RUN))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the images, if it is their turn."""
        self._epoch = epoch
        if (epoch + 1) % self.every == 0:
            self._write(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write the images of the last epoch unless they are there, and what was pruned after it; close the file."""
        if self._epoch is not None and self._written != self._epoch:
            self._write(self._epoch)
        elif self._epoch is not None and self._changed():
            self._write(self._epoch + 1)
        self._writer.close()

    def _changed(self) -> bool:
        """Whether something was pruned since images were written, as some callbacks do when training ends."""
        now = (folded(kernel) for kernel in self._kernels)
        return any(not np.array_equal(before, living) for before, living in zip(self._seen, now, strict=True))

    def _write(self, epoch: int) -> None:
        # TensorBoard callbacks that write every n batches tell all writers to leave out the steps between.
        with self._writer.as_default(), tf.summary.record_if(True):
            self._seen = [folded(kernel) for kernel in self._kernels]
            for kernel, living in zip(self._kernels, self._seen, strict=True):
                shares = pooled(living, self.max_size)
                pixels = np.rint(shares * 255).astype(np.uint8)
                tf.summary.image(f"mask/{kernel.name}", pixels[None, :, :, None], step=epoch)
        self._writer.flush()  # to be seen while training goes on
        self._written = epoch


def folded(kernel: Kernel) -> np.ndarray:
    """Return which weights of a kernel are alive, with a column for each output channel.

    Args:
        kernel: The kernel.

    Returns:
        A bool array of two axes: what an output channel sums over, and output channels.
    """
    living, axis = living_weights(kernel.variable), kernel.input_axis
    if axis == -1 and living.ndim > 2:  # a transposed convolution keeps its inputs last
        living, axis = living.swapaxes(-1, -2), -2
    if axis == -1:  # a table: nothing is summed
        return living.reshape(-1, living.shape[-1])
    first_output = axis if kernel.depthwise else axis + 1
    return living.reshape(-1, math.prod(living.shape[first_output:]))


def pooled(values: np.ndarray, limit: int) -> np.ndarray:
    """Return the means over blocks, so that no side is longer than `limit`.

    Args:
        values: An array of two axes.
        limit: The longest side.

    Returns:
        A float array; the same numbers if it is small enough.

    Example:

    >>> pooled(np.array([[1, 0, 0], [1, 1, 0]]), 2)
    array([[1. , 0. ],
           [1. , 0.5]])
    """
    result = values.astype(float)
    for axis, size in enumerate(values.shape):
        if size > limit:
            starts = np.arange(limit) * size // limit
            sizes = np.diff(np.append(starts, size))
            sums = np.add.reduceat(result, starts, axis)
            result = sums / (sizes[:, None] if axis == 0 else sizes)
    return result
