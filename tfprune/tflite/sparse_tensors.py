"""Constants of a `.tflite` file of which only some values are stored: where these stand, and whether that makes sense.

The schema describes a tree: each level lists, for each node of the level above, all indices of an axis (dense) or those
that have values (compressed rows). Axes behind the tensor's own are those inside blocks.
"""

from typing import Any

import numpy as np

_DENSE = 0


def positions(sparsity: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return where the stored values stand.

    Args:
        sparsity: The `SparsityParametersT` of a tensor.
        shape: The tensor's shape.

    Returns:
        One array of indices per axis, in the order in which the values are stored.

    Raises:
        ValueError: If the description contradicts itself or the shape.
    """
    order = [int(axis) for axis in sparsity.traversalOrder]
    block_map = [] if sparsity.blockMap is None else [int(axis) for axis in sparsity.blockMap]
    sizes = _level_sizes(sparsity, order, block_map, shape)
    parents = np.zeros(1, int)
    indices: list[np.ndarray] = []
    for axis, level in zip(order, sparsity.dimMetadata, strict=True):
        parents, here = _children(level, sizes[axis], len(parents))
        indices = [*(index[parents] for index in indices), here]
    found = [np.zeros(len(parents), int) for _ in shape]
    for axis, index in zip(order, indices, strict=True):
        if axis >= len(shape):
            found[block_map[axis - len(shape)]] += index
        else:
            found[axis] += index * (sizes[len(shape) + block_map.index(axis)] if axis in block_map else 1)
    return tuple(found)


def _level_sizes(sparsity: Any, order: list[int], block_map: list[int], shape: tuple[int, ...]) -> dict[int, int]:
    """Return how many indices each axis has, outside blocks and inside."""
    if sorted(order) != list(range(len(shape) + len(block_map))) or len(sparsity.dimMetadata) != len(order):
        raise ValueError("a sparse constant has a wrong order of axes")
    if len(set(block_map)) != len(block_map) or not set(block_map) <= set(range(len(shape))):
        raise ValueError("a sparse constant has blocks along wrong axes")
    inside = {
        axis: int(level.denseSize)
        for axis, level in zip(order, sparsity.dimMetadata, strict=True)
        if axis >= len(shape)
    }
    sizes = dict(enumerate(shape)) | inside
    for number, axis in enumerate(block_map):
        block = inside[len(shape) + number]
        if block < 1 or shape[axis] % block:
            raise ValueError(f"a sparse constant of shape {list(shape)} has blocks of {block}")
        sizes[axis] = shape[axis] // block
    return sizes


def _children(level: Any, size: int, num_parents: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the parent and the index of each node of one level."""
    if level.format == _DENSE:
        if level.denseSize != size:
            raise ValueError(f"a sparse constant has {level.denseSize} indices along an axis of {size}")
        return np.repeat(np.arange(num_parents), size), np.tile(np.arange(size), num_parents)
    if level.arraySegments is None or level.arrayIndices is None:
        raise ValueError("a sparse constant has no positions")
    starts, indices = np.asarray(level.arraySegments.values, int), np.asarray(level.arrayIndices.values, int)
    counts = np.diff(starts)
    if len(counts) != num_parents or starts[0] != 0 or starts[-1] != len(indices) or (counts < 0).any():
        raise ValueError("a sparse constant has rows that do not follow each other")
    if len(indices) and not (indices.min() >= 0 and indices.max() < size):
        raise ValueError("a sparse constant has a value outside of its shape")
    return np.repeat(np.arange(num_parents), counts), indices
