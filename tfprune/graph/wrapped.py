"""The calls of layers inside wrappers, as far as they can be told from the wrapper's own call."""

import dataclasses

import keras

from tfprune.graph.walk import Node, nested

layers = keras.layers


def inner_nodes(node: Node) -> list[Node]:
    """Return the calls of the layers inside a wrapper, for one call of the wrapper.

    `TimeDistributed` calls its layer once per time step; the node stands for one of them.

    Args:
        node: A call of `TimeDistributed`, `SpectralNormalization` or `Bidirectional`.

    Returns:
        One node for each layer inside; for other layers, an empty list.

    Example:

    >>> from tfprune.graph.walk import walk
    >>> wrapper = keras.layers.TimeDistributed(keras.layers.Dense(2))
    >>> model = keras.Sequential([keras.Input((5, 3)), wrapper])
    >>> [inner.input_shapes for inner in inner_nodes(next(walk(model)))]
    [[(3,)]]
    """
    layer = node.operation
    if isinstance(layer, layers.TimeDistributed):
        tensor = node.inputs[0]
        shape = (tensor.shape[0], *tensor.shape[2:])
        return [_inner(node, layer.layer, keras.KerasTensor(shape, tensor.dtype, name=tensor.name))]
    if isinstance(layer, layers.SpectralNormalization):
        return [_inner(node, layer.layer, node.inputs[0])]
    if isinstance(layer, layers.Bidirectional):
        return [_inner(node, each, node.inputs[0]) for each in (layer.forward_layer, layer.backward_layer)]
    return []


def model_for_each_step(node: Node) -> tuple[keras.layers.Layer, keras.Model] | None:
    """Return the model that a `TimeDistributed` calls once per time step, or that the layer inside it stands for.

    Args:
        node: A call.

    Returns:
        The layer inside, and its model of one input and one output; `None` for any other call.

    Example:

    >>> from tfprune.graph.walk import walk
    >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model = keras.Sequential([keras.Input((5, 3)), keras.layers.TimeDistributed(inner)])
    >>> model_for_each_step(next(walk(model)))[1] is inner
    True
    """
    if type(node.operation) is not layers.TimeDistributed:
        return None
    inner = inner_nodes(node)[0]
    step = inner.inputs[0]
    view = nested(dataclasses.replace(inner, args=(step,), kwargs={}, general=((step,), {})))
    return (inner.operation, view) if view is not None and len(view.inputs) == len(view.outputs) == 1 else None


def _inner(node: Node, layer: keras.layers.Layer, tensor: keras.KerasTensor) -> Node:
    shapes = layer.compute_output_shape(tensor.shape)
    if isinstance(shapes[0], int) or shapes[0] is None:
        shapes = [shapes]
    outputs = tuple(keras.KerasTensor(shape, layer.compute_dtype, name=layer.name) for shape in shapes)
    return dataclasses.replace(node, operation=layer, inputs=(tensor, *node.inputs[1:]), outputs=outputs)
