"""Which layer makes the channels that one int8 scale for a whole output is too coarse for."""

from typing import Any

import keras

from tfprune.exporting.verify import OutputError
from tfprune.graph import Node, functional, walk
from tfprune.quantization import is_quantize_aware, strip


def lost_message(model: keras.Model, number: int, output: OutputError) -> str:
    """Return what to tell of an output with lost channels, and what to do.

    Args:
        model: The model.
        number: Which of its outputs it is.
        output: How far that is from the model's, with the channels.
    """
    model = strip(model) if is_quantize_aware(model) else model
    found = list(output.lost_channels)
    shown = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    layer = maker_of(model, number, found[0])
    return (
        f"Output {output.name!r} is one int8 tensor with one scale, and its channels differ much in range: all "
        f"numbers of {len(found)} of them ({shown}; made by the layer {layer!r}) lie within two steps, and are lost. "
        f"Let {layer!r} be an output of its own instead of a part of this one, or scale its numbers to the size of the "
        "others and back outside of the model."
    )


def maker_of(model: keras.Model, number: int, channel: int) -> str:
    """Return the name of the layer that makes one channel of an output, in front of concatenations and reshapes.

    Args:
        model: The model.
        number: Which of its outputs.
        channel: Which channel.

    Example:

    >>> inputs = keras.Input((2,))
    >>> parts = [keras.layers.Dense(2, name="boxes")(inputs), keras.layers.Dense(3, name="scores")(inputs)]
    >>> maker_of(keras.Model(inputs, keras.layers.Concatenate()(parts)), 0, channel=4)
    'scores'
    """
    makers = {id(tensor): node for node in walk(model) for tensor in node.outputs}
    tensor = functional(model).outputs[number]
    while id(tensor) in makers:
        node: Node = makers[id(tensor)]
        layer: Any = node.operation
        last = len(node.outputs[0].shape) - 1
        if type(layer).__name__ != "Concatenate" or layer.axis not in (-1, last):
            return str(layer.name)
        for part in node.inputs:
            if channel < part.shape[-1]:
                tensor = part
                break
            channel -= part.shape[-1]
    return str(tensor.name)
