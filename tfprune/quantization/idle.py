"""Calls that compute nothing at inference, or only pick values, found in the graph that TensorFlow makes of them."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from tfprune.graph import Node
from tfprune.graph.calls import renewed

_PASSES = {"Identity", "StopGradient", "PreventGradient", "Snapshot"}
_PICKS = {*_PASSES, "StridedSlice", "Slice"}


def does_nothing(node: Node) -> bool:
    """Return whether a call returns its input at inference, as augmentation and dropout do.

    Args:
        node: The call.

    Returns:
        Whether it does, whatever the class of the layer.

    Example:

    >>> from tfprune.graph import walk
    >>> flip, elu = keras.layers.RandomFlip(), keras.layers.ELU()
    >>> [does_nothing(node) for node in walk(keras.Sequential([keras.Input((4, 4, 3)), flip, elu]))]
    [True, False]
    """
    return _is_one_to_one(node) and node.inputs[0].shape == node.outputs[0].shape and _consists_of(node, _PASSES)


def only_picks(node: Node) -> bool:
    """Return whether each number that a call returns at inference is one of its input, at fixed positions.

    Args:
        node: The call.

    Returns:
        Whether it is so, as of an augmentation that crops.
    """
    ranks = len(node.inputs[0].shape), len(node.outputs[0].shape)
    return _is_one_to_one(node) and ranks[0] == ranks[1] and _consists_of(node, _PICKS)


def _is_one_to_one(node: Node) -> bool:
    tensors = (*node.inputs, *node.outputs)
    return len(node.inputs) == len(node.outputs) == 1 and tensors[0].dtype == tensors[1].dtype


def _consists_of(node: Node, kinds: set[str]) -> bool:
    """Whether there are only operations of these kinds from the input of a call to its output."""

    def called(tensor: Any) -> Any:
        args, kwargs = renewed((tuple(node.args), dict(node.kwargs)), {id(node.inputs[0]): tensor})
        if "training" in inspect.signature(node.operation.call).parameters:  # its default may be True
            kwargs["training"] = False
        # What is inside the layer learns from the call around it that it is one at inference.
        outside = keras.layers.Lambda(lambda _: node.operation(*args, **kwargs), dtype=tensor.dtype)
        return outside(tensor, training=False)

    (given,) = node.inputs
    traced = tf.function(called, autograph=False).get_concrete_function(tf.TensorSpec(given.shape, given.dtype))
    (tensor,) = traced.outputs
    while tensor is not traced.inputs[0]:
        if tensor.op.type not in kinds:
            return False
        tensor = tensor.op.inputs[0]
    return True
