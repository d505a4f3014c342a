"""Parts of a model that a penalty pushes to zero together: filters, channels, layers, or all that the graph ties."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from tfprune.graph import ChannelGroup, Member, Role
from tfprune.training.step import Weight


@dataclass(frozen=True, eq=False)
class Slices:
    """How one variable takes part in a `Structure`.

    Attributes:
        variable: The variable.
        axes: The axes along which it is cut into slices, ascending; none for the variable as a whole.
        parts: For every slice the part of the structure that it belongs to, or -1 for none; an int array whose shape
            is that of the variable on these axes.
    """

    variable: keras.Variable
    axes: tuple[int, ...]
    parts: np.ndarray

    def squared_norms(self, value: Any, size: int) -> Any:
        """Return, for each of `size` parts, the sum of the squared values of its slices."""
        others = tuple(axis for axis in range(len(self.variable.shape)) if axis not in self.axes)
        sums = ops.reshape(ops.sum(ops.square(ops.cast(value, "float32")), axis=others), (-1,))
        if self._in_order(size):
            return sums
        return ops.segment_sum(sums, np.where(self.parts < 0, size, self.parts).ravel(), num_segments=size + 1)[:size]

    def broadcast(self, per_part: Any, outside: float) -> Any:
        """Return a value per part in a shape that broadcasts against the variable; `outside` for slices of no part."""
        if not self._in_order(per_part.shape[0]):
            padded = ops.concatenate([per_part, ops.full((1,), outside, dtype=per_part.dtype)])
            per_part = ops.take(padded, self.parts.ravel())  # -1 takes the last
        shape = [size if axis in self.axes else 1 for axis, size in enumerate(self.variable.shape)]
        return ops.reshape(per_part, shape)

    def _in_order(self, size: int) -> bool:
        return np.array_equal(self.parts.ravel(), np.arange(size))


@dataclass(frozen=True, eq=False)
class Structure:
    """Parts of a model, alike in kind, each of which is to become zero as a whole or not at all.

    Attributes:
        name: The layer or channel group, for messages.
        size: How many parts there are.
        slices: What belongs to them.
        group: The channel group that the parts are the channels of, if they are.
    """

    name: str
    size: int
    slices: tuple[Slices, ...]
    group: ChannelGroup | None = None

    @cached_property
    def part_sizes(self) -> np.ndarray:
        """How many weights each part has; an int array."""
        total = np.zeros(self.size + 1, int)
        for one in self.slices:
            inner = math.prod(one.variable.shape) // max(one.parts.size, 1)
            np.add.at(total, np.where(one.parts < 0, self.size, one.parts).ravel(), inner)
        return total[: self.size]

    @cached_property
    def holders(self) -> tuple[np.ndarray, ...]:
        """The sets of parts of which some must stay: all of them, and those that one variable has, where it has fewer.

        A layer that makes only some of the channels of a group would otherwise vanish. A variable that is not cut into
        slices may.
        """
        cut = [one.parts for one in self.slices if one.axes]
        parts = [np.arange(self.size), *(np.unique(each[each >= 0]) for each in cut)]
        return tuple({found.tobytes(): found for found in parts}.values())

    def that_stay(self, kept: Mapping[int, Sequence[np.ndarray]]) -> np.ndarray:
        """Return which parts a smaller copy of the model still has something of.

        Args:
            kept: For each variable (by id) the positions that stay on each of its axes.

        Returns:
            One bool per part.
        """
        stays = np.zeros(self.size, bool)
        for one in self.slices:
            parts = one.parts[np.ix_(*(kept[id(one.variable)][axis] for axis in one.axes))]
            stays[parts[parts >= 0]] = True
        return stays

    def squared_norms(self, weight: Weight) -> Any:
        """Return the sum of squares of every part.

        Args:
            weight: From a variable to its value; `ops.convert_to_tensor` outside of a training step.

        Returns:
            A float32 tensor of shape (size,).
        """
        return sum(one.squared_norms(weight(one.variable), self.size) for one in self.slices)

    def protect(self, squared_norms: Any, factors: Any, min_channels: int) -> Any:
        """Return the factors with 1 instead of 0 for the `min_channels` parts of largest norm, so that they stay.

        Of the parts that one variable has, `min_channels` stay too. Other factors than 0 are left as they are.

        Args:
            squared_norms: As from `squared_norms`.
            factors: A float tensor of shape (size,).
            min_channels: How many parts stay.

        Returns:
            A tensor like `factors`.
        """
        return ops.where(ops.equal(factors, 0), self.largest(squared_norms, min_channels, factors.dtype), factors)

    def largest(self, squared_norms: Any, count: int, dtype: Any) -> Any:
        """Return 1 for the `count` parts of largest norm, overall and among those that one variable has; else 0.

        Args:
            squared_norms: As from `squared_norms`.
            count: How many.
            dtype: Of the result.

        Returns:
            A tensor of shape (size,).
        """
        found = ops.zeros((self.size,), dtype)
        for parts in self.holders:
            order = ops.top_k(ops.take(squared_norms, parts), min(count, len(parts))).indices
            chosen = ops.one_hot(ops.take(parts, order), self.size, dtype=dtype)
            found = ops.maximum(found, ops.max(chosen, axis=0))
        return found

    def masks(self, dead: np.ndarray) -> dict[str, np.ndarray]:
        """Return masks over the variables.

        Args:
            dead: One bool per part, True for those to be zero.

        Returns:
            For each variable path, a bool array of the variable's shape, False where a dead part is.
        """
        found: dict[str, np.ndarray] = {}
        for one in self.slices:
            shape = tuple(one.variable.shape)
            gone = np.append(dead, False)[one.parts]  # -1 takes the last
            gone = gone.reshape([size if axis in one.axes else 1 for axis, size in enumerate(shape)])
            found[one.variable.path] = found.get(one.variable.path, np.ones(shape, bool)) & ~gone
        return found


PerPart = Iterable[tuple[Structure, Any]]
"""Structures, each with a float tensor of one value per part."""


def scaled(factors: PerPart, weight: Weight) -> list[tuple[keras.Variable, Any]]:
    """Return variables with every part of every structure multiplied by its factor.

    Where parts overlap, a weight is multiplied by the factors of all that it belongs to. A factor of 0 gives +0.0,
    also for a negative weight: a -0.0 would say that `HeldMasks` has pruned it.

    Args:
        factors: Structures and their factors.
        weight: From a variable to its value.

    Returns:
        Variables and their new values.
    """
    products = _per_variable(factors, 1.0, operator.mul)
    return [(variable, _times(weight(variable), factor)) for variable, factor in products]


def multiples(numbers: PerPart, weight: Weight) -> list[tuple[keras.Variable, Any]]:
    """Return, for variables of structures, the weights times the numbers of the parts that they belong to.

    Where parts overlap, the numbers add up. Weights that belong to no part give 0.

    Args:
        numbers: Structures and their numbers.
        weight: From a variable to its value.

    Returns:
        Variables and tensors of their shape.
    """
    sums = [(variable, weight(variable), number) for variable, number in _per_variable(numbers, 0.0, operator.add)]
    return [(variable, value * ops.cast(number, value.dtype)) for variable, value, number in sums]


def of_group(group: ChannelGroup, *roles: Role, trainable_only: bool = True) -> Structure:
    """Return the channels of a group as a structure: what the graph says must go together.

    Args:
        group: A channel group.
        roles: Which members take part: `"producer"`, `"affine"`, `"consumer"`.
        trainable_only: Whether variables that are not trained take no part.

    Returns:
        One part per channel.

    Example:

    >>> from tfprune.graph import channel_groups
    >>> layers = [keras.Input((3,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2)]
    >>> group = channel_groups(keras.Sequential(layers)).free[0]
    >>> of_group(group, "producer", "affine", "consumer").part_sizes.tolist()
    [6, 6, 6, 6]
    """
    members = [member for member in group.with_role(*roles) if member.variable.trainable or not trainable_only]
    return Structure(group.name, group.size, tuple(_slices(member, member.channels) for member in members), group)


def coupled(groups: Iterable[ChannelGroup]) -> list[Structure]:
    """Return the channels of groups with all that makes, carries and reads them.

    Args:
        groups: Channel groups.

    Returns:
        A structure for each group.
    """
    return [of_group(group, "producer", "affine", "consumer") for group in groups]


def of_member(member: Member, axes: Iterable[int] = ()) -> Structure:
    """Return the channels of one variable as a structure, tied to nothing.

    Args:
        member: What makes or reads them.
        axes: Other axes that tell parts apart too.

    Returns:
        One part per channel, for each position on `axes`.

    Example:

    >>> from tfprune.graph import channel_groups
    >>> layers = [keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.Conv2D(2, 3, name="second")]
    >>> reader = channel_groups(keras.Sequential(layers)).free[0].with_role("consumer")[0]
    >>> of_member(reader).size, of_member(reader, axes=(0, 1)).size
    (4, 36)
    """
    channels = np.unique(member.channels, return_inverse=True)[1]
    axis = member.axis % len(member.variable.shape)
    slices = _slices(member, channels, sorted({axis, *axes}))
    return Structure(member.layer.name, int(slices.parts.max()) + 1, (slices,))


def along(name: str, variable: keras.Variable, axes: Iterable[int]) -> Structure:
    """Return the slices of one variable along some of its axes as a structure.

    Args:
        name: For messages.
        variable: A kernel.
        axes: Which axes tell parts apart. Of a convolution's kernel (height, width, inputs, outputs) `(3,)` gives its
            filters, `(2,)` its input channels, `(0, 1, 2)` its shape-wise columns and `()` the layer as a whole.

    Returns:
        One part per slice.

    Example:

    >>> kernel = keras.Variable(np.ones((3, 3, 2, 4)))
    >>> [along("conv", kernel, axes).size for axes in [(3,), (2,), (0, 1, 2), ()]]
    [4, 2, 18, 1]
    """
    axes = tuple(sorted(axis % len(variable.shape) for axis in axes))
    shape = tuple(variable.shape[axis] for axis in axes)
    parts = np.arange(math.prod(shape)).reshape(shape)
    return Structure(name, parts.size, (Slices(variable, axes, parts),))


def wholes(name: str, parts: Sequence[Iterable[keras.Variable]]) -> Structure:
    """Return sets of variables as a structure: all of a set becomes zero, or nothing of it.

    Args:
        name: For messages.
        parts: The variables of each part.

    Returns:
        One part per set.

    Example:

    >>> first, second, third = (keras.Variable(np.ones(size)) for size in (2, 3, 4))
    >>> wholes("branches", [[first, second], [third]]).part_sizes.tolist()
    [5, 4]
    """
    slices = (Slices(variable, (), np.array(i)) for i, variables in enumerate(parts) for variable in variables)
    return Structure(name, len(parts), tuple(slices))


def _slices(member: Member, channels: np.ndarray, axes: Sequence[int] = ()) -> Slices:
    """The slices of a member, whose part is their channel and, with other axes, their place on these."""
    axis = member.axis % len(member.variable.shape)
    axes = axes or [axis]
    first = np.full(member.variable.shape[axis], -1)
    first[member.positions] = channels
    shape = [member.variable.shape[each] for each in axes]
    others = math.prod(shape) // len(first)
    place = np.arange(others).reshape([1 if each == axis else member.variable.shape[each] for each in axes])
    along_axis = first.reshape([-1 if each == axis else 1 for each in axes])
    return Slices(member.variable, tuple(axes), np.where(along_axis < 0, -1, along_axis * others + place))


def _per_variable(
    per_parts: PerPart, outside: float, combine: Callable[[Any, Any], Any]
) -> list[tuple[keras.Variable, Any]]:
    """Values of parts, spread over the variables; combined where several structures share a variable."""
    found: dict[str, tuple[keras.Variable, Any]] = {}
    for structure, per_part in per_parts:
        for one in structure.slices:
            spread = one.broadcast(per_part, outside)
            if one.variable.path in found:
                spread = combine(found[one.variable.path][1], spread)
            found[one.variable.path] = (one.variable, spread)
    return list(found.values())


def _times(value: Any, factor: Any) -> Any:
    # Equality, so that NaN stays NaN.
    factor = ops.cast(factor, value.dtype)
    return ops.where(ops.equal(factor, 0), ops.zeros_like(value), value * factor)
