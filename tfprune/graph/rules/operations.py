"""`keras.ops` and Python arithmetic on symbolic tensors, and layers inside Keras that it does not export."""

from typing import Any

import keras
import numpy as np

from tfprune.graph.rules.merging import merge
from tfprune.graph.rules.registry import rule
from tfprune.graph.trace import Call


@rule("Add", "Subtract", "Maximum", "Minimum")
def _sum(call: Call) -> np.ndarray | list[np.ndarray]:
    constants = _constants(call)
    if any(np.size(constant) > 1 for constant in constants):
        return call.give_up(f"{call.layer.name!r} adds an array that would have to shrink too")
    call.zero_stays_zero = not any(np.any(np.asarray(constant) != 0) for constant in constants)
    return merge(call)


@rule("Multiply")
def _product(call: Call) -> np.ndarray | list[np.ndarray]:
    if any(np.size(constant) > 1 for constant in _constants(call)):
        return call.give_up(f"{call.layer.name!r} multiplies by an array that would have to shrink too")
    call.is_product = True
    return merge(call)


@rule("LayerScale", width="projection_dim")
def _layer_scale(call: Call) -> np.ndarray:
    call.bind(call.layer.gamma, 0, call.along(call.inputs[0], -1), "affine", "scale")
    return call.inputs[0]


@rule("CustomScaleLayer")
def _scaled_residual(call: Call) -> np.ndarray | list[np.ndarray]:
    return merge(call)


def _constants(call: Call) -> list[Any]:
    """The arguments of an operation that are not symbolic tensors."""
    return [value for value in call.node.args if not isinstance(value, keras.KerasTensor)]
