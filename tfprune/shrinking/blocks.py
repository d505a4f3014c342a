"""The residual blocks of a model: which can go, what data says about them, and models without some."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.data import Batch
from tfprune.graph import analyse
from tfprune.graph.exclude import Chosen
from tfprune.graph.residual import Branch, residual_branches
from tfprune.graph.wiring import Wiring
from tfprune.layers import ScalingFactor, scaling_factors
from tfprune.rewriting.cloning import duplicate
from tfprune.rewriting.edits import Edit
from tfprune.shrinking.factors import drop_repeated_relus, fold_scaling_factors
from tfprune.statistics.block_similarity import block_distances
from tfprune.statistics.evaluation import Evaluation, EvaluationLoss

_LOSSES: tuple[EvaluationLoss, ...] = ("divergence", "compiled")
STATISTICS = ("cosine_distance", "angular_distance", *(f"{loss}_change" for loss in _LOSSES))
"""What can be gathered about blocks."""

Factors = Mapping[int, ScalingFactor]


@dataclass(frozen=True, eq=False)
class Block:
    """A branch and the addition behind it.

    Attributes:
        name: The addition's name; of two with the same one the second is called `name#2`.
        branch: The branch.
        layers: The layers of the branch that have weights.
        stays: Why it cannot be left out; empty if it can.
    """

    name: str
    branch: Branch
    layers: tuple[keras.layers.Layer, ...]
    stays: str = ""

    @property
    def num_parameters(self) -> int:
        """How many weights the branch has."""
        weights = {id(weight): weight for layer in self.layers for weight in layer.weights}
        return sum(int(np.prod(weight.shape)) for weight in weights.values())


class Blocks:
    """The residual blocks of a model.

    Args:
        model: A built Keras model.
        excluded: Tells which layers must stay.

    Attributes:
        each: The blocks in the order in which data flows.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.
    """

    def __init__(self, model: keras.Model, excluded: Chosen) -> None:
        self._model, self._wiring = model, Wiring.of(model)
        names: dict[str, int] = {}
        self.each: list[Block] = []
        for branch in residual_branches(self._wiring):
            name = branch.node.operation.name
            names[name] = names.get(name, 0) + 1
            layers = _layers(branch)
            name = name if names[name] == 1 else f"{name}#{names[name]}"
            self.each.append(Block(name, branch, layers, _stays(branch, layers, excluded)))

    @property
    def free(self) -> list[Block]:
        """The blocks that can be left out."""
        return [block for block in self.each if not block.stays]

    def statistics(self, names: Collection[str], batches: Sequence[Batch]) -> list[dict[str, float]]:
        """Return what data says about the free blocks.

        Args:
            names: What to gather, of `STATISTICS`.
            batches: The data.

        Returns:
            For each free block, numbers by name.
        """
        free = self.free
        shortcuts, branches = _factors(free, "shortcut"), _factors(free, "branch")
        places = [
            {1 - block.branch.index: one, block.branch.index: other}
            for block, one, other in zip(free, shortcuts, branches, strict=True)
        ]
        copy = _with_factors(self._model, free, places)
        found: list[dict[str, float]] = [{} for _ in free]
        if {"cosine_distance", "angular_distance"} & {*names}:
            pairs = list(zip(shortcuts, branches, strict=True))
            for numbers, (cosine, angle) in zip(found, block_distances(copy, batches, pairs), strict=True):
                numbers |= {"cosine_distance": float(cosine), "angular_distance": float(angle)}
        for loss in _LOSSES:
            if f"{loss}_change" in names:
                changes = _changes(Evaluation(copy, batches, loss), branches)
                for numbers, change in zip(found, changes, strict=True):
                    numbers[f"{loss}_change"] = change
        return found

    def without(self, blocks: Sequence[Block]) -> keras.Model:
        """Return a copy of the model without some of its blocks.

        Args:
            blocks: Free blocks.

        Returns:
            A new model, compiled like the model.
        """
        edits = {block.branch.node.key: Edit(inputs=(1 - block.branch.index,)) for block in blocks}
        drop_repeated_relus(self._wiring, edits)
        small = duplicate(self._model, analyse(self._model), edits)[0]
        return fold_scaling_factors(small) if scaling_factors(small) else small


def _changes(evaluation: Evaluation, branches: Sequence[ScalingFactor]) -> Iterator[float]:
    """What the loss rises by when each branch alone is multiplied by 0."""
    before = evaluation.loss()
    for branch in branches:
        branch.factor.assign(0.0)
        yield evaluation.loss() - before
        branch.factor.assign(1.0)


def _with_factors(model: keras.Model, blocks: Sequence[Block], places: Sequence[Factors]) -> keras.Model:
    """A copy of a model in which each block has these factors on its inputs, by their number."""
    edits = {block.branch.node.key: Edit(before=factors) for block, factors in zip(blocks, places, strict=True)}
    return duplicate(model, analyse(model), edits)[0]


def _factors(blocks: Sequence[Block], part: str) -> list[ScalingFactor]:
    """A factor of 1 for each block."""
    return [
        ScalingFactor(name=f"tfprune_{part}_{number}", dtype=block.branch.node.outputs[0].dtype)
        for number, block in enumerate(blocks)
    ]


def _layers(branch: Branch) -> tuple[keras.layers.Layer, ...]:
    """The layers of a branch that have weights, each once."""
    called = {id(node.operation): node.operation for node in branch.nodes}.values()
    return tuple(layer for layer in called if isinstance(layer, keras.layers.Layer) and layer.weights)


def _stays(branch: Branch, layers: Sequence[keras.layers.Layer], excluded: Chosen) -> str:
    if branch.projection is not None:
        return f"its shortcut is a projection, {branch.projection.operation.name!r}"
    shortcut, output = branch.node.inputs[1 - branch.index], branch.node.outputs[0]
    if shortcut.dtype != output.dtype:
        return f"its shortcut is {shortcut.dtype}, and its output {output.dtype}"
    held = next((layer.name for layer in layers if any(map(excluded.holds, layer.weights))), None)
    return f"{held!r} is excluded" if held is not None else ""
