"""Tickets in other models: with another head, or deeper or shallower ones of the same family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import keras
import numpy as np

from tfprune.tickets.block_stages import BlockVariables, Stage, stages_of
from tfprune.training.masks import Masks, variables_by_path

Order: TypeAlias = Literal["interleave", "append"]
Layers: TypeAlias = Sequence[keras.layers.Layer]
Variables: TypeAlias = Sequence[keras.Variable]


@dataclass(frozen=True, eq=False)
class Transfer:
    """Which weight of one model takes the place of which weight of another.

    Attributes:
        target: The model that gets the weights; it is not changed.
        sources: For each variable path of the target the path in the source that its values come from.
        fresh: The paths of the target that come from nowhere: they keep the target's values, and have no mask.
        left: The paths of the source that go nowhere.

    Example:

    >>> def build(classes):
    ...     return keras.Sequential([
    ...         keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(classes, name="classes")])
    >>> source, target = build(10), build(2)
    >>> transfer = to_new_head(source, target, [target.get_layer("classes")])
    >>> masks = transfer.masks({source.layers[0].kernel.path: np.eye(4, 3, dtype=bool)})
    >>> [mask.sum().item() for mask in masks.values()], len(transfer.fresh), len(transfer.left)
    ([3], 2, 2)
    """

    target: keras.Model
    sources: Mapping[str, str]
    fresh: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def replicas(self) -> tuple[str, ...]:
        """The paths of the target whose values an earlier path has already."""
        seen: set[str] = set()
        found = []
        for path, source in self.sources.items():
            if source in seen:
                found.append(path)
            seen.add(source)
        return tuple(found)

    def masks(self, masks: Mapping[str, np.ndarray]) -> Masks:
        """Return the masks of a ticket for the target.

        Args:
            masks: For each variable path of the source a bool array, False where weights are pruned.

        Returns:
            For each variable path of the target a copy. What has no mask in the source, or comes from nowhere, has
            none.

        Raises:
            ValueError: If a mask is of no weight of the source.
        """
        self._check(masks)
        return {path: masks[source].copy() for path, source in self.sources.items() if source in masks}

    def weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the weights of a ticket for the target, with the statistics of BatchNormalization.

        Args:
            weights: For each variable path of the source its values.

        Returns:
            For each variable path of the target a copy; where no values are given, those that the target has.

        Raises:
            ValueError: If a path is of no weight of the source.
        """
        self._check(weights)
        own = variables_by_path(self.target)
        found = {path: weights.get(self.sources.get(path, "")) for path in own}
        return {path: own[path].numpy() if each is None else each.copy() for path, each in found.items()}

    def _check(self, arrays: Mapping[str, np.ndarray]) -> None:
        unknown = [path for path in arrays if path not in {*self.sources.values(), *self.left}]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no weight of the model that the transfer begins with. Give the arrays of that "
                "model, by the paths of its variables."
            )


def to_new_head(source: keras.Model, target: keras.Model, head: Layers) -> Transfer:
    """Match a model with one of the same body and another head, for a ticket that goes to another data set.

    Layers are matched by their names, or in their order where Keras has counted names up.

    Args:
        source: The model that the ticket was found in; built.
        target: The model to train; built.
        head: The layers of the target that are new. They stay as they are, and dense.

    Returns:
        What goes where, for `Transfer.masks` and `Transfer.weights`.

    Raises:
        ValueError: If a layer is no part of the target, or what is not new has no match, or one of another shape.

    Example:

    >>> def build(classes):
    ...     return keras.Sequential([
    ...         keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(classes, name="classes")])
    >>> source, target = build(10), build(2)
    >>> transfer = to_new_head(source, target, [target.get_layer("classes")])
    >>> weights = transfer.weights({weight.path: weight.numpy() for weight in source.weights})
    >>> bool((weights[target.layers[0].kernel.path] == source.layers[0].kernel.numpy()).all())
    True
    """
    body = _without(target, head)
    return _transfer(source, target, _matched(body, list(source.weights), target.name))


def to_other_depth(
    source: keras.Model,
    target: keras.Model,
    blocks: Order | Sequence[Sequence[int | None]] = "interleave",
    head: Layers = (),
) -> Transfer:
    """Match a residual network with a deeper or shallower one of its family: an elastic ticket transformation.

    Residual blocks whose outputs have one shape are a stage. The first block of each stage, and all that lies outside
    blocks, is copied. The other blocks of a stage are repeated or left out until their number fits, with their masks,
    their weights and the statistics of BatchNormalization. So depth may differ, and widths may not.

    Reference: Chen et al., The Elastic Lottery Ticket Hypothesis, NeurIPS 2021, https://arxiv.org/abs/2103.16547

    Args:
        source: The model that the ticket was found in; built, and readable layer by layer.
        target: The model to train, likewise.
        blocks: `"interleave"` repeats each block in its place (1, 1, 2, 2) and leaves out blocks here and there;
            `"append"` repeats the whole row (1, 2, 1, 2) and leaves out the last. Or for each stage the number of the
            source's block for each of the target's, from 0; None for one that stays as it is, and dense.
        head: The layers of the target that are new, as in `to_new_head`.

    Returns:
        What goes where.

    Raises:
        TypeError: If a model is no Keras 3 model.
        ValueError: If a model cannot be read layer by layer or has no residual block, the stages are not as many, a
            number of `blocks` does not fit, or weights have other shapes.

    Example:

    >>> def build(depth):
    ...     x = inputs = keras.Input((4,))
    ...     for index in range(depth):
    ...         x = keras.layers.Add()([x, keras.layers.Dense(4, name=f"dense{index}")(x)])
    ...     return keras.Model(inputs, x)
    >>> to_other_depth(build(3), build(5)).sources["dense2/kernel"]
    'dense1/kernel'
    """
    here, there = stages_of(source), stages_of(target)
    if len(here) != len(there):
        raise ValueError(
            f"{source.name!r} has {len(here)} stages of residual blocks, and {target.name!r} has {len(there)}: "
            f"outputs of {[stage.shape for stage in here]} and {[stage.shape for stage in there]}. A ticket goes to "
            "other numbers of blocks within the same stages."
        )
    rows = _rows(here, there, blocks)
    inside: dict[str, str] = {}
    for stage, (own, other, row) in enumerate(zip(here, there, rows, strict=True)):
        for number, (block, index) in enumerate(zip(other.blocks, row, strict=True)):
            if index is not None:
                inside |= _same_block(own.blocks[index], block, f"block {number} of stage {stage}")
    outside = _outside(target, there, _without(target, head))
    return _transfer(source, target, inside | _matched(outside, _outside(source, here, source.weights), target.name))


def block_numbers(num_source: int, num_target: int, order: Order) -> list[int]:
    """Return for each block of a stage of the target the number of the source's block that it is made of.

    Args:
        num_source: How many blocks the stage has in the source.
        num_target: How many it has in the target.
        order: How blocks are repeated or left out; see `to_other_depth`.

    Returns:
        Numbers from 0. The first block of the target is the first of the source.

    Example:

    >>> block_numbers(3, 5, "interleave"), block_numbers(3, 5, "append"), block_numbers(5, 3, "interleave")
    ([0, 1, 1, 2, 2], [0, 1, 2, 1, 2], [0, 1, 3])
    """
    many, wanted = num_source - 1, num_target - 1
    if not many:
        return [0] * num_target
    rest = (place * many // wanted if order == "interleave" else place % many for place in range(wanted))
    return [0, *(1 + number for number in rest)]


def _rows(
    here: Sequence[Stage], there: Sequence[Stage], blocks: Order | Sequence[Sequence[int | None]]
) -> Sequence[Sequence[int | None]]:
    sizes = [(len(own.blocks), len(other.blocks)) for own, other in zip(here, there, strict=True)]
    if blocks == "interleave" or blocks == "append":
        return [block_numbers(*size, blocks) for size in sizes]
    if isinstance(blocks, str):
        raise ValueError(f"blocks must be 'interleave', 'append' or numbers for each stage. Received: {blocks!r}.")
    wanted = [num_target for _, num_target in sizes]
    if [len(row) for row in blocks] != wanted:
        raise ValueError(
            f"blocks must have a number, or None, for each block of the target, whose stages have {wanted}. Received: "
            f"{[len(row) for row in blocks]} numbers."
        )
    for stage, (row, (num_source, _)) in enumerate(zip(blocks, sizes, strict=True)):
        wrong = [number for number in row if number is not None and not 0 <= number < num_source]
        if wrong:
            raise ValueError(
                f"Stage {stage} of the source has the blocks 0 to {num_source - 1}. Received: {wrong[0]!r}."
            )
    return blocks


def _same_block(source: BlockVariables, target: BlockVariables, what: str) -> dict[str, str]:
    if len(source) != len(target):
        raise ValueError(f"{what} has {len(target)} weights, and the block that it would come from {len(source)}.")
    return dict(_same(one, other, what) for one, other in zip(target, source, strict=True))


def _outside(model: keras.Model, stages: Sequence[Stage], variables: Variables) -> list[keras.Variable]:
    """The variables, without those of blocks."""
    inside = {id(variable) for stage in stages for block in stage.blocks for variable in block}
    return [variable for variable in variables if id(variable) not in inside]


def _without(model: keras.Model, head: Layers) -> list[keras.Variable]:
    """The variables of a model without those of some layers."""
    own = {id(variable) for variable in model.weights}
    new = {id(variable) for layer in head for variable in layer.weights}
    foreign = next((layer for layer in head if any(id(variable) not in own for variable in layer.weights)), None)
    if foreign is not None:
        raise ValueError(f"{foreign.name!r} in head is no layer of {model.name!r}, the model that gets the ticket.")
    return [variable for variable in model.weights if id(variable) not in new]


def _matched(body: Variables, source: Variables, name: str) -> dict[str, str]:
    """From the paths of a body to those of a source: by name if all are there, or in order."""
    by_path = {variable.path: variable for variable in source}
    if all(variable.path in by_path for variable in body):
        return dict(_same(variable, by_path[variable.path], variable.path) for variable in body)
    if len(body) > len(source):
        raise ValueError(
            f"{name!r} has {len(body)} weights to match, and the source of the ticket only {len(source)}. Name the "
            "layers that are new in `head`."
        )
    return dict(_same(one, other, one.path) for one, other in zip(body, source, strict=False))


def _same(target: keras.Variable, source: keras.Variable, what: str) -> tuple[str, str]:
    """The paths of two variables that can take each other's place, or a ValueError."""
    if tuple(target.shape) != tuple(source.shape) or target.name != source.name:
        raise ValueError(
            f"{what} does not fit: {target.path!r} of shape {tuple(target.shape)} would take its values from "
            f"{source.path!r} of shape {tuple(source.shape)}. If its layer is new, name it in `head`."
        )
    return target.path, source.path


def _transfer(source: keras.Model, target: keras.Model, sources: Mapping[str, str]) -> Transfer:
    ours, theirs = variables_by_path(target), variables_by_path(source)
    ordered = {path: sources[path] for path in ours if path in sources}
    used = set(ordered.values())
    return Transfer(
        target,
        ordered,
        tuple(path for path in ours if path not in ordered),
        tuple(path for path in theirs if path not in used),
    )
