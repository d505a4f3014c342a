"""Which positions of a larger model's kernels a smaller one holds."""

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.graph import Analysis
from tfprune.graph.chains import chains
from tfprune.graph.kinds import find_kind


@dataclass(frozen=True)
class KeptPositions:
    """What was kept of the kernels of a model from which channels were removed.

    Attributes:
        axes: For each kernel, by the names of the layers that lead to it and its attribute, the positions that stay on
            each of its axes; int arrays.
        shapes: The shape that each kernel had.
    """

    axes: Mapping[str, tuple[np.ndarray, ...]]
    shapes: Mapping[str, tuple[int, ...]]

    def after(self, earlier: "KeptPositions") -> "KeptPositions":
        """Return these positions, of a model that `earlier` led to, as positions in the model before that."""
        names = self.axes.keys() & earlier.axes.keys()
        return KeptPositions(
            {
                name: tuple(old[new] for old, new in zip(earlier.axes[name], self.axes[name], strict=True))
                for name in names
            },
            {name: earlier.shapes[name] for name in names},
        )

    def leads_from(self, model: keras.Model) -> bool:
        """Return whether a model has the kernels that these positions lie in."""
        shapes = {name: tuple(kernel.shape) for name, _, kernel in named_kernels(model)}
        return all(shapes.get(name) == shape for name, shape in self.shapes.items())


_KEPT: "weakref.WeakKeyDictionary[keras.Model, KeptPositions]" = weakref.WeakKeyDictionary()


def remember(copy: keras.Model, model: keras.Model, analysis: Analysis, alive: np.ndarray) -> None:
    """Keep in mind, for as long as a copy lives, which positions of the kernels of a model it holds.

    Of a copy of a copy it is those of the first model.

    Args:
        copy: The copy.
        model: What it was made from.
        analysis: The analysis of the model.
        alive: One bool per channel number; False for those that the copy lacks.
    """
    axes, shapes = {}, {}
    for name, _, kernel in named_kernels(model):
        shapes[name] = tuple(kernel.shape)
        bound = [analysis.trace.bindings.get((id(kernel), axis)) for axis in range(len(kernel.shape))]
        axes[name] = tuple(
            np.arange(size) if each is None else np.flatnonzero(alive[each.channels])
            for size, each in zip(kernel.shape, bound, strict=True)
        )
    kept = KeptPositions(axes, shapes)
    _KEPT[copy] = kept.after(_KEPT[model]) if model in _KEPT else kept


def kept_positions(small: keras.Model, model: keras.Model) -> KeptPositions:
    """Return which positions of the kernels of a model a smaller one holds.

    What this process made is known. Of a model from a file they are found where its kernels still hold numbers of the
    larger one, as they do until it is trained.

    Args:
        small: The smaller model.
        model: The model that it was made from.

    Returns:
        The positions of every kernel of the smaller model.

    Raises:
        ValueError: If a kernel of the smaller model is not one of the model, or it cannot be told what it holds.

    Example:

    >>> from tfprune import channel_groups, shrink
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(1)])
    >>> small = shrink(model, keep={channel_groups(model).free[0]: [0, 2]})
    >>> [positions.tolist() for positions in kept_positions(small, model).axes["hidden/kernel"]]
    [[0, 1], [0, 2]]
    """
    known = _KEPT.get(small)
    if known is not None and known.leads_from(model):
        return known
    kernels = {name: kernel for name, _, kernel in named_kernels(model)}
    axes = {}
    for name, _, kernel in named_kernels(small):
        if name not in kernels or len(kernels[name].shape) != len(kernel.shape):
            raise ValueError(
                f"{small.name!r} was not made from {model.name!r}, which has no kernel {name!r} of this kind. "
                "Give the model that the channels were removed from."
            )
        axes[name] = _matched(kernels[name].numpy(), kernel.numpy(), name)
    return KeptPositions(axes, {name: tuple(kernels[name].shape) for name in axes})


def named_kernels(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer, keras.Variable]]:
    """Yield the name, the layer and the variable of every kernel of a model, each once.

    Where several layers share one name, as they can in a model with a `call` of its own, the first is meant.

    Example:

    >>> [name for name, _, _ in named_kernels(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="a")]))]
    ['a/kernel']
    """
    seen, names = set(), set()
    for chain in chains(model):
        for axes in find_kind(chain[-1]).kernels:
            kernel, name = axes.of(chain[-1]), "/".join([*(layer.name for layer in chain), axes.attribute])
            if kernel is not None and id(kernel) not in seen and name not in names:
                seen.add(id(kernel))
                names.add(name)
                yield name, chain[-1], kernel


def _matched(whole: np.ndarray, part: np.ndarray, name: str) -> tuple[np.ndarray, ...]:
    """The positions on each axis of a kernel that a part of it was cut out of."""
    axes = tuple(_matched_axis(whole, part, axis) for axis in range(whole.ndim))
    if any(axis is None for axis in axes) or not np.array_equal(whole[np.ix_(*axes)], part):
        raise ValueError(
            f"It cannot be told which channels the kernel {name!r} of shape {part.shape} kept of {whole.shape}: this "
            "process did not remove them, and its numbers are not those of the larger model. Reconstruct right after "
            "the removal, before the small model is saved or trained."
        )
    return axes  # type: ignore[return-value]


def _matched_axis(whole: np.ndarray, part: np.ndarray, axis: int) -> np.ndarray | None:
    if whole.shape[axis] == part.shape[axis]:
        return np.arange(part.shape[axis])
    slices = np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)
    found = []
    for wanted in np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1):
        likely = np.flatnonzero((slices == wanted[np.abs(wanted).argmax()]).any(axis=1))
        matching = [position for position in likely.tolist() if np.isin(wanted, slices[position]).all()]
        if len(matching) != 1:
            return None
        found += matching
    return np.array(found)
