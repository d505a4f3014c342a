"""Keras' own record of the calls of a functional model."""

from typing import Any

import keras

Tensors = dict[int, keras.KerasTensor]
"""By the id of a tensor, the one that takes its place."""


def nodes_in_order(graph: keras.Model) -> list[Any]:
    """Return Keras' own nodes of a functional model, each after those that it depends on."""
    # Private: Keras has no public order of calls; `model.operations` lists a shared layer once.
    # tests/graph/test_walk.py fails when it moves.
    nodes_by_depth = graph._nodes_by_depth
    nodes = [node for depth in sorted(nodes_by_depth, reverse=True) for node in nodes_by_depth[depth]]
    return [node for node in nodes if not node.is_input]


def renewed(structure: Any, new: Tensors) -> Any:
    """Return a structure with other tensors in the place of its own.

    Args:
        structure: Tensors and anything else, in tuples, lists and dicts.
        new: What takes the place of each tensor.

    Returns:
        A structure of the same form.
    """
    return keras.tree.map_structure(
        lambda value: new[id(value)] if isinstance(value, keras.KerasTensor) else value, structure
    )
