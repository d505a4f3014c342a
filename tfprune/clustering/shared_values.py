"""Kernels of few different values: which values, and which of them each weight gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import keras
import numpy as np

from tfprune.clustering.k_means import Init, check_installed, k_means, nearest
from tfprune.common.checks import check_choice, check_count
from tfprune.graph import check_traceable
from tfprune.graph.chains import chains
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.graph.kinds import find_kind


@dataclass(frozen=True, eq=False)
class SharedKernel:
    """A kernel whose weights share values.

    Attributes:
        variable: The variable.
        output_axes: The axes along which the channels lie that it makes, negative.
    """

    variable: keras.Variable
    output_axes: tuple[int, ...]

    @property
    def weights(self) -> np.ndarray:
        """Its weights, float32."""
        return np.asarray(keras.ops.convert_to_numpy(self.variable), np.float32)


@dataclass(frozen=True)
class Sharing:
    """How the weights of a kernel share values.

    Attributes:
        clusters: How many different values a kernel may have.
        init: Where the centroids start.
        per_channel: Whether every output channel has values of its own.
        keep_zeros: Whether weights that are zero stay so, as one of the values.
        seed: Of random choices.
    """

    clusters: int
    init: Init = "k-means++"
    per_channel: bool = False
    keep_zeros: bool = True
    seed: int = 0

    def check(self) -> None:
        """Raise if an argument is out of range."""
        if check_count("clusters", self.clusters) < 2:
            raise ValueError("clusters must be 2 or more: a kernel of one value computes nothing. Received: 1.")
        check_choice("init", self.init, get_args(Init))
        check_installed(self.init)

    def axes(self, kernel: SharedKernel) -> tuple[int, ...]:
        """Return the axes of a kernel, negative, along which every position has values of its own."""
        return kernel.output_axes if self.per_channel else ()

    def num_trained(self, weights: np.ndarray) -> int:
        """Return how many values other than a zero that stays the weights of a kernel can have."""
        return self.clusters - int(self.keep_zeros and bool((weights == 0).any()))

    def centroids(self, weights: np.ndarray, axes: Sequence[int]) -> np.ndarray:
        """Return the values that weights share.

        Args:
            weights: A kernel.
            axes: As from `axes`.

        Returns:
            `(channels, values)`, float32, in ascending order; one row where all channels share.
        """
        count = self.num_trained(weights)
        rows = []
        for index, row in enumerate(rows_of(weights, axes)):
            living = row[row != 0] if self.keep_zeros else row
            fitted = k_means(living, count, self.init, self.seed + index) if living.size else np.zeros(count)
            rows.append(fitted.astype(np.float32))
        return np.stack(rows)


def shared(weights: np.ndarray, centroids: np.ndarray, axes: Sequence[int], keep_zeros: bool) -> np.ndarray:
    """Return a kernel in which every weight is the nearest of a few values.

    Args:
        weights: The kernel.
        centroids: In ascending order, `(channels, values)` or `(1, values)`.
        axes: The axes, negative, along which each position has a row of its own; none for one row.
        keep_zeros: Whether weights that are zero stay as they are.

    Returns:
        An array of the kernel's shape and dtype.

    Example:

    >>> shared(np.array([[0.0, 0.9], [2.2, -1.0]]), np.array([[-1.0, 1.0, 2.0]]), (), True).tolist()
    [[0.0, 1.0], [2.0, -1.0]]
    """
    rows = rows_of(weights, axes)
    made = np.stack([values[nearest(row, values)] for row, values in zip(rows, centroids, strict=True)])
    first = [axis % weights.ndim for axis in axes]
    others = [axis for axis in range(weights.ndim) if axis not in first]
    order = [*first, *others]
    made = made.reshape([weights.shape[axis] for axis in order]).transpose(np.argsort(order))
    return np.where(weights == 0, weights, made).astype(weights.dtype) if keep_zeros else made.astype(weights.dtype)


def rows_of(weights: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return a kernel as one row for each position along some axes, negative; as one row if there are none."""
    first = [axis % weights.ndim for axis in axes]
    others = [axis for axis in range(weights.ndim) if axis not in first]
    channels = int(np.prod([weights.shape[axis] for axis in first], dtype=int))
    return weights.transpose([*first, *others]).reshape(channels, -1)


def clustered_kernels(model: keras.Model, sharing: Sharing, exclude: Exclude) -> list[SharedKernel]:
    """Return the kernels whose weights will share values, or raise before any work if some cannot.

    Args:
        model: A built Keras model.
        sharing: How.
        exclude: Layers to leave alone.

    Returns:
        The kernels, each once, without those of depthwise convolutions.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built, has no such kernel, or one that is quantized, has fewer weights than
            clusters, or weights that are not finite.
    """
    sharing.check()
    check_traceable(model)
    excluded = resolve_exclude(model, exclude)
    found: dict[int, SharedKernel] = {}
    for *_, holder in chains(model):
        for row in find_kind(holder).kernels:
            variable = row.of(holder)
            if variable is None or row.depthwise or excluded(holder):
                continue
            kernel = SharedKernel(variable, row.output_axes)
            _check(kernel, holder, sharing)
            found.setdefault(id(variable), kernel)
    if not found:
        raise ValueError(
            f"The model {model.name!r} has no kernel whose weights could share values: none of its layers has one, or "
            "they are depthwise or excluded."
        )
    return list(found.values())


def _check(kernel: SharedKernel, holder: keras.layers.Layer, sharing: Sharing) -> None:
    variable, leave_out = kernel.variable, f"leave {holder.name!r} out with exclude"
    if not isinstance(variable, keras.Variable) or not keras.backend.is_float_dtype(variable.dtype):
        raise ValueError(f"{holder.name!r} is quantized or has LoRA enabled. Share values before that, or {leave_out}.")
    if not np.isfinite(kernel.weights).all():
        raise ValueError(f"The kernel {variable.path!r} has weights that are not finite. Train the model anew.")
    size = rows_of(kernel.weights, sharing.axes(kernel)).shape[1]
    if size < sharing.clusters:
        where = "per channel " if sharing.per_channel else ""
        raise ValueError(
            f"The kernel {variable.path!r} has {size} weights {where}and cannot have {sharing.clusters} clusters. "
            f"Ask for fewer clusters, or {leave_out}."
        )
