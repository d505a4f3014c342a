"""Pruning that changes the weights that stay: layer by layer, each for what the pruned layers before it give."""

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfprune.criteria import SparseGPT, WeightView
from tfprune.criteria.sparse_gpt import Part
from tfprune.data import Reader, inputs_of
from tfprune.distributions import Distribution
from tfprune.granularity import Granularity, NofM, Unstructured, floor_share, prune_lowest
from tfprune.parts.kernels import Kernel
from tfprune.parts.lazy_arrays import LazyArrays
from tfprune.parts.weight_choice import Choice
from tfprune.statistics.input_grams import InputGrams, rows_of
from tfprune.training.masks import record_masks, recorded_mask


def prune_layer_by_layer(
    model: keras.Model, choice: Choice, sparsity: float, criterion: SparseGPT, distribution: Distribution, data: Any
) -> None:
    """Prune the kernels in their order, and let the weights that stay make up for those that go.

    Args:
        model: The model.
        choice: The kernels.
        sparsity: The sparsity of those that have none of their own.
        criterion: What chooses and makes up.
        distribution: How the sparsity is split over the kernels.
        data: Inputs.

    Raises:
        ValueError: If a kernel cannot be pruned so.
    """
    name = type(criterion).__name__
    if data is None:
        raise ValueError(f"{name} needs data, and none was given. Pass inputs: data=x.")
    for kernel in choice.kernels.values():
        _check(kernel, choice.granularity, choice.own.get(kernel.name, sparsity), name)
    reader = Reader(data, inputs_of(model), max_samples=1024)
    measure = InputGrams(model, [kernel.holder for kernel in choice.kernels.values()], reader)
    shares = _shares(choice, sparsity, distribution)
    for index, (name, kernel) in enumerate(choice.kernels.items()):
        gram = measure(index)
        view = WeightView(name, functools.partial(_weights, kernel), statistics={"input_gram": gram})
        parts = _parts(kernel, choice.granularity, shares[name], view.weights.shape, criterion.block_size)
        mask, weights = criterion.prune(view, _matrix(kernel, recorded_mask(kernel.variable)), parts)
        kernel.variable.assign(_folded(kernel, weights))
        record_masks(model, {kernel.path: _folded(kernel, mask)})


def _shares(choice: Choice, sparsity: float, distribution: Distribution) -> dict[str, float]:
    """The sparsity of each kernel."""
    sizes = {name: tuple(kernel.variable.shape) for name, kernel in choice.kernels.items()}
    rest = [name for name in sizes if name not in choice.own]
    weights = LazyArrays(rest, lambda name: np.abs(choice.kernels[name].variable.numpy()))
    counts = distribution(weights, sparsity) if rest else {}
    return {**choice.own, **{name: counts[name] / np.prod(sizes[name]) for name in rest}}


def _parts(
    kernel: Kernel, granularity: Granularity, sparsity: float, shape: tuple[int, ...], block_size: int
) -> Iterator[Part]:
    """What is chosen from together: blocks of inputs, or the groups of a pattern."""
    inputs, outputs = shape
    if isinstance(granularity, NofM):
        run = kernel.variable.shape[kernel.input_axis]
        for start in range(0, inputs, run):
            for first in range(start, start + run, granularity.m):
                rows = slice(first, min(first + granularity.m, start + run))
                yield rows, functools.partial(granularity.mask, sparsity=1 - granularity.n / granularity.m)
        return
    gone = 0
    for first in range(0, inputs, block_size):
        last = min(first + block_size, inputs)
        due = floor_share(last * outputs, sparsity)
        yield slice(first, last), functools.partial(prune_lowest, count=due - gone)
        gone = due


def _check(kernel: Kernel, granularity: Granularity, sparsity: float, criterion: str) -> None:
    if rows_of(kernel.holder) is None:
        raise ValueError(
            f"{criterion} cannot prune {kernel.name!r}: it knows Dense, EinsumDense and convolutions of one group, and "
            f"this is a {type(kernel.holder).__name__}. Name the layers to prune: sparsity={{layer: fraction}}."
        )
    if not isinstance(granularity, NofM | Unstructured):
        raise ValueError(f"{criterion} prunes single weights and NofM patterns. Received: granularity={granularity}.")
    if isinstance(granularity, NofM) and sparsity < 1 - granularity.n / granularity.m - 1e-9:
        raise ValueError(
            f"{criterion} fills a pattern: {granularity} means a sparsity of {1 - granularity.n / granularity.m:.6g}. "
            f"Received: {sparsity}."
        )


def _weights(kernel: Kernel) -> np.ndarray:
    return _matrix(kernel, kernel.variable.numpy())


def _matrix(kernel: Kernel, array: np.ndarray) -> np.ndarray:
    """A kernel as a matrix (inputs, outputs)."""
    last = np.moveaxis(array, kernel.output_axes, range(-len(kernel.output_axes), 0))
    return last.reshape(-1, int(np.prod(last.shape[-len(kernel.output_axes) :])))


def _folded(kernel: Kernel, matrix: np.ndarray) -> np.ndarray:
    shape = tuple(kernel.variable.shape)
    made = [axis % len(shape) for axis in kernel.output_axes]
    order = [axis for axis in range(len(shape)) if axis not in made] + made
    return np.moveaxis(matrix.reshape([shape[axis] for axis in order]), range(len(shape)), order)
