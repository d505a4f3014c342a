"""What a layer costs to run."""

import math
from collections.abc import Callable
from typing import Any

import keras

from tfprune.graph.kinds import exact_kind
from tfprune.graph.rules.attention import attention_arguments, projections
from tfprune.graph.walk import Node
from tfprune.graph.wrapped import inner_nodes

layers = keras.layers


class Sizes:
    """How large variables and tensors are: as they are now. `graph/counting.py` has one for other widths."""

    def variable(self, variable: keras.Variable) -> tuple[Any, ...]:
        """Return the shape of a variable."""
        return tuple(variable.shape)

    def tensor(self, tensor: keras.KerasTensor) -> tuple[Any, ...]:
        """Return the shape of a symbolic tensor, without the batch axis."""
        return tuple(tensor.shape[1:])


AS_BUILT = Sizes()

Cost = Callable[[Node, Sizes], Any]

COSTS: dict[type, Cost] = {}
"""For kinds of layers whose kernels do not say it all, the MACs of one call for one sample."""


def cost(*layer_classes: type) -> Callable[[Cost], Cost]:
    """Register what a kind of layer costs; a decorator for a function from a `Node` and `Sizes` to its MACs."""

    def register(function: Cost) -> Cost:
        COSTS.update(dict.fromkeys(layer_classes, function))
        return function

    return register


def multiply_accumulates(node: Node, sizes: Sizes = AS_BUILT) -> Any:
    """Count the multiply-accumulate operations (MACs) of one call for one sample.

    A convolution costs output positions times kernel size times input channels per group times output channels;
    a dense layer costs inputs times outputs, for each position that it is applied to; a recurrent layer both of its
    kernels for each time step; attention its projections, its scores and its weighted sums. Everything else counts as
    zero: normalization folds into the layer before it on the phone, and additions and activations are few.

    Args:
        node: One call of one layer, from `walk`.
        sizes: How large its variables and tensors are; as they are now if left out.

    Returns:
        The number of MACs: an int, or what the sizes multiply to.

    Raises:
        ValueError: If the spatial size of the output is not known.

    Example:

    >>> from tfprune.graph.walk import walk
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, padding="same")])
    >>> [multiply_accumulates(node) for node in walk(model)] == [8 * 8 * 3 * 3 * 3 * 4]
    True
    """
    count = COSTS.get(type(node.operation), _products)
    return count(node, sizes)


def fixed_shape(node: Node, shape: tuple[Any, ...]) -> tuple[Any, ...]:
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


def _products(node: Node, sizes: Sizes) -> Any:
    """Every weight of a kernel is multiplied once for each position that the kernel is applied at."""
    shapes = {"outputs": node.outputs[:1], "inputs": node.inputs[:1]}
    return sum(
        _positions(node, sizes.tensor(tensor)) * math.prod(sizes.variable(kernel.of(node.operation)))
        for kernel in exact_kind(node.operation).kernels
        for tensor in shapes.get(kernel.applied_at or "", ())
    )


@cost(layers.EinsumDense)
def _einsum(node: Node, sizes: Sizes) -> Any:
    """Every element of the input is multiplied by the slices of the kernel along the axes that it has not itself."""
    source, _, letters = node.operation.equation.replace(" ", "").partition("->")[0].partition(",")
    kernel = sizes.variable(node.operation.kernel)
    own = [size for letter, size in zip(letters, kernel, strict=True) if letter not in source]
    return math.prod(fixed_shape(node, sizes.tensor(node.inputs[0]))) * math.prod(own)


@cost(layers.SimpleRNN, layers.GRU, layers.LSTM)
def _recurrent(node: Node, sizes: Sizes) -> Any:
    kernels = (node.operation.cell.kernel, node.operation.cell.recurrent_kernel)
    steps = fixed_shape(node, sizes.tensor(node.inputs[0]))[0]
    return steps * sum(math.prod(sizes.variable(each)) for each in kernels)


@cost(layers.MultiHeadAttention, layers.GroupQueryAttention)
def _attention(node: Node, sizes: Sizes) -> Any:
    """The projections, the scores of every query with every key, and the sums of values by those scores."""
    arguments, parts = attention_arguments(node), projections(node.operation)
    shapes = {name: fixed_shape(node, sizes.tensor(arguments[name])) for name in ("query", "key", "value")}
    source = {**shapes, "gate": shapes["query"], "output": shapes["query"]}
    kernels = {name: sizes.variable(part.kernel) for name, part in parts.items()}
    projected = sum(math.prod(source[name][:-1]) * math.prod(kernel) for name, kernel in kernels.items())
    axes = getattr(node.operation, "attention_axes", (1,))
    keys = math.prod(shapes["key"][axis - 1] for axis in axes)
    _, heads, features = kernels["query"]
    width = kernels["value"][2]
    return projected + math.prod(shapes["query"][:-1]) * keys * heads * (features + width)


@cost(layers.TimeDistributed)
def _time_distributed(node: Node, sizes: Sizes) -> Any:
    steps = fixed_shape(node, sizes.tensor(node.inputs[0]))[0]
    return steps * sum(multiply_accumulates(each, sizes) for each in inner_nodes(node))


@cost(layers.SpectralNormalization, layers.Bidirectional)
def _wrapper(node: Node, sizes: Sizes) -> Any:
    return sum(multiply_accumulates(each, sizes) for each in inner_nodes(node))


def _positions(node: Node, shape: tuple[Any, ...]) -> Any:
    sizes = fixed_shape(node, shape)
    return math.prod(sizes[1:] if getattr(node.operation, "data_format", None) == "channels_first" else sizes[:-1])
