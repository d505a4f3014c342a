"""What a layer costs to run."""

import math

from tfprune.graph.walk import Node

_CONVOLUTIONS = {"Conv2D", "DepthwiseConv2D"}


def multiply_accumulates(node: Node) -> int:
    """Count the multiply-accumulate operations (MACs) of one call for one sample.

    A convolution costs output positions times kernel size times input channels per group times output channels;
    a dense layer costs inputs times outputs, for each position that it is applied to. Everything else counts
    as zero: normalization folds into the layer before it on the phone, and additions and activations are few.

    Args:
        node: One call of one layer, from `walk`.

    Returns:
        The number of MACs.

    Raises:
        ValueError: If the spatial size of the output is not known.

    Example:

    >>> import keras
    >>> from tfprune.graph.walk import walk
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same")])
    >>> [multiply_accumulates(node) for node in walk(model)] == [8 * 8 * 3 * 3 * 3 * 4]
    True
    """
    layer = node.operation
    kind = type(layer).__name__
    if kind not in _CONVOLUTIONS and kind != "Dense":
        return 0
    shape = [size for size in node.output_shapes[0] if size is not None]
    if len(shape) < len(node.output_shapes[0]):
        raise ValueError(
            f"The output of {layer.name!r} has shape {node.output_shapes[0]}, so its cost is unknown. "
            "Build the model with a fixed input shape, such as keras.Input((96, 96, 3))."
        )
    if kind == "Dense":
        return math.prod(shape[:-1]) * math.prod(layer.kernel.shape)
    positions = math.prod(shape[:2] if layer.data_format == "channels_last" else shape[1:])
    return positions * math.prod(layer.kernel.shape)
