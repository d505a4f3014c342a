"""The residual blocks of a network, stage by stage."""

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import keras

from tfprune.graph.residual import Branch, residual_branches
from tfprune.graph.wiring import Wiring

BlockVariables: TypeAlias = tuple[keras.Variable, ...]
"""The variables of a block: those of the branch, then those of the shortcut, in the order of the data."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Residual blocks in a row whose outputs have one shape.

    Attributes:
        shape: The shape of their outputs, without the batch.
        blocks: The variables of each.
    """

    shape: tuple[int | None, ...]
    blocks: tuple[BlockVariables, ...]


def stages_of(model: keras.Model) -> list[Stage]:
    """Return the stages of a residual network, in the order in which data flows.

    Args:
        model: A built Keras model.

    Raises:
        TypeError: If it is no Keras 3 model.
        ValueError: If it is not built, cannot be read layer by layer, or has no residual block.

    Example:

    >>> x = inputs = keras.Input((4,))
    >>> for _ in range(2):
    ...     x = keras.layers.Add()([x, keras.layers.Dense(4)(x)])
    >>> [(stage.shape, [len(block) for block in stage.blocks]) for stage in stages_of(keras.Model(inputs, x))]
    [((4,), [2, 2])]
    """
    branches = list(residual_branches(Wiring.of(model)))
    if not branches:
        raise ValueError(
            f"{model.name!r} has no residual block, an addition of a shortcut and a branch, so there is nothing to "
            "repeat or to leave out. Use to_new_head for models of one depth."
        )
    rows = itertools.groupby(branches, key=lambda branch: tuple(branch.node.outputs[0].shape[1:]))
    return [Stage(shape, tuple(map(_variables, blocks))) for shape, blocks in rows]


def _variables(branch: Branch) -> BlockVariables:
    layers = [node.operation for node in (*branch.nodes, *branch.shortcut)]
    found = {id(each): each for layer in layers if isinstance(layer, keras.layers.Layer) for each in layer.weights}
    return tuple(found.values())
