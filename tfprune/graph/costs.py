"""What a layer costs to run."""

import math
from collections.abc import Callable

import keras

from tfprune.graph.kinds import exact_kind
from tfprune.graph.rules.attention import attention_arguments, projections
from tfprune.graph.walk import Node, Shape
from tfprune.graph.wrapped import inner_nodes

layers = keras.layers

Cost = Callable[[Node], int]

COSTS: dict[type, Cost] = {}
"""For kinds of layers whose kernels do not say it all, the MACs of one call for one sample."""


def cost(*layer_classes: type) -> Callable[[Cost], Cost]:
    """Register what a kind of layer costs; a decorator for a function from a `Node` to its MACs."""

    def register(function: Cost) -> Cost:
        COSTS.update(dict.fromkeys(layer_classes, function))
        return function

    return register


def multiply_accumulates(node: Node) -> int:
    """Count the multiply-accumulate operations (MACs) of one call for one sample.

    A convolution costs output positions times kernel size times input channels per group times output channels;
    a dense layer costs inputs times outputs, for each position that it is applied to; a recurrent layer both of its
    kernels for each time step; attention its projections, its scores and its weighted sums. Everything else counts as
    zero: normalization folds into the layer before it on the phone, and additions and activations are few.

    Args:
        node: One call of one layer, from `walk`.

    Returns:
        The number of MACs.

    Raises:
        ValueError: If the spatial size of the output is not known.

    Example:

    >>> from tfprune.graph.walk import walk
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same")])
    >>> [multiply_accumulates(node) for node in walk(model)] == [8 * 8 * 3 * 3 * 3 * 4]
    True
    """
    count = COSTS.get(type(node.operation), _products)
    return count(node)


def fixed_shape(node: Node, shape: Shape) -> tuple[int, ...]:
    """Return a shape of a node all of whose sizes are known, or raise.

    Args:
        node: The node, for the message.
        shape: One of its input or output shapes, without the batch axis.

    Returns:
        The shape.

    Raises:
        ValueError: If a size is unknown.
    """
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape):
        raise ValueError(
            f"{node.operation.name!r} works on the shape {shape}, so its cost is unknown. "
            "Build the model with a fixed input shape, such as keras.Input((96, 96, 3))."
        )
    return sizes


def _products(node: Node) -> int:
    """Every weight of a kernel is multiplied once for each position that the kernel is applied at."""
    shapes = {"outputs": node.output_shapes[:1], "inputs": node.input_shapes[:1]}
    return sum(
        _positions(node, shape) * math.prod(kernel.of(node.operation).shape)
        for kernel in exact_kind(node.operation).kernels
        for shape in shapes.get(kernel.applied_at or "", ())
    )


@cost(layers.EinsumDense)
def _einsum(node: Node) -> int:
    """Every element of the input is multiplied by the slices of the kernel along the axes that it has not itself."""
    source, _, letters = node.operation.equation.replace(" ", "").partition("->")[0].partition(",")
    own = [size for letter, size in zip(letters, node.operation.kernel.shape, strict=True) if letter not in source]
    return math.prod(fixed_shape(node, node.input_shapes[0])) * math.prod(own)


@cost(layers.SimpleRNN, layers.GRU, layers.LSTM)
def _recurrent(node: Node) -> int:
    cell = node.operation.cell
    weights = math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)
    return fixed_shape(node, node.input_shapes[0])[0] * weights


@cost(layers.MultiHeadAttention, layers.GroupQueryAttention)
def _attention(node: Node) -> int:
    """The projections, the scores of every query with every key, and the sums of values by those scores."""
    arguments, parts = attention_arguments(node), projections(node.operation)
    shapes = {name: fixed_shape(node, tuple(arguments[name].shape[1:])) for name in ("query", "key", "value")}
    source = {**shapes, "gate": shapes["query"], "output": shapes["query"]}
    projected = sum(math.prod(source[name][:-1]) * math.prod(part.kernel.shape) for name, part in parts.items())
    axes = getattr(node.operation, "attention_axes", (1,))
    keys = math.prod(shapes["key"][axis - 1] for axis in axes)
    _, heads, features = parts["query"].kernel.shape
    width = parts["value"].kernel.shape[2]
    return projected + math.prod(shapes["query"][:-1]) * keys * heads * (features + width)


@cost(layers.TimeDistributed)
def _time_distributed(node: Node) -> int:
    return fixed_shape(node, node.input_shapes[0])[0] * sum(multiply_accumulates(each) for each in inner_nodes(node))


@cost(layers.SpectralNormalization, layers.Bidirectional)
def _wrapper(node: Node) -> int:
    return sum(multiply_accumulates(each) for each in inner_nodes(node))


def _positions(node: Node, shape: Shape) -> int:
    sizes = fixed_shape(node, shape)
    return math.prod(sizes[1:] if getattr(node.operation, "data_format", None) == "channels_first" else sizes[:-1])
