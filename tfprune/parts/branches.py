"""What zeros do in a model: which layers pass them on, which tensors are zero, and which branches can vanish whole."""

from collections.abc import Callable, Iterable, Iterator

import keras

from tfprune.graph import Node
from tfprune.graph.kinds import exact_kind, is_changed
from tfprune.graph.residual import residual_branches
from tfprune.graph.wiring import Wiring, is_addition
from tfprune.layers.scaling_factor import ScalingFactor

layers = keras.layers

POSITIVE = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
ZERO_AT_ZERO = (*POSITIVE, *(getattr(keras.activations, name) for name in ("elu", "gelu", "hard_silu", "mish")))
ZERO_AT_ZERO += tuple(getattr(keras.activations, name) for name in ("relu6", "selu", "silu", "softsign", "tanh"))

IsZero = Callable[[keras.Variable], bool]


def zero_tensors(wiring: Wiring, is_zero: IsZero) -> set[int]:
    """Find the tensors of a model that are zero for every input, as far as its layers are known.

    Zeros start where a kernel and its bias, a gamma and its beta, or a scaling factor are zero, and pass what maps zero
    to zero.

    Args:
        wiring: The wiring of the model.
        is_zero: Whether a variable is zero throughout.

    Returns:
        The tensors, by id.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer="zeros")
    >>> wiring = Wiring.of(keras.Sequential([keras.Input((3,)), layer, keras.layers.ReLU(), keras.layers.Softmax()]))
    >>> zero = zero_tensors(wiring, lambda variable: not variable.numpy().any())
    >>> [id(node.outputs[0]) in zero for node in wiring.nodes]
    [True, True, False]
    """
    zero: set[int] = set()
    for node in wiring.nodes:
        if _gives_zero(node, zero, is_zero):
            zero.add(id(node.outputs[0]))
        view = wiring.views.get(id(node.operation))
        if view is not None:
            pairs = zip(view.outputs, node.outputs, strict=True)
            zero.update(id(outer) for inner, outer in pairs if id(inner) in zero)
    return zero


def vanishing_branches(
    wiring: Wiring, leave_alone: Callable[[keras.Operation], bool]
) -> Iterator[tuple[keras.Variable, ...]]:
    """Find the residual branches that add nothing once all their trained weights are zero.

    A layer that is called more than once takes no part, since its weights are not the branch's alone.

    Args:
        wiring: The wiring of a model.
        leave_alone: Whether a layer must stay; then its branch does.

    Yields:
        The trained weights of a branch.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = keras.layers.Dense(4)(keras.layers.Dense(9, "relu")(inputs))
    >>> wiring = Wiring.of(keras.Model(inputs, keras.layers.Add()([inputs, branch])))
    >>> [[variable.name for variable in branch] for branch in vanishing_branches(wiring, lambda layer: False)]
    [['kernel', 'bias', 'kernel', 'bias']]
    """
    for branch in residual_branches(wiring):
        found = list(_layers_within(branch.nodes, wiring))
        variables = {id(v): v for layer in found for v in getattr(layer, "trainable_weights", ())}
        zero = zero_tensors(wiring, lambda variable: id(variable) in variables)  # noqa: B023, called at once
        if id(branch.node.inputs[branch.index]) in zero and not any(map(leave_alone, found)):
            yield tuple(variables.values())


def commutes(operation: keras.Operation, activations: tuple[Callable[..., object], ...]) -> bool:
    """Return whether scaling the input of an operation scales its output alike.

    Args:
        operation: What a `Node` calls.
        activations: Those that pass the factor at hand, such as `POSITIVE`, or `ZERO_AT_ZERO` for a factor of zero.

    Returns:
        Whether it does; False where that is not known.
    """
    factors = exact_kind(operation).factors
    if factors == "input" or (factors == "input_if_positive" and keras.activations.relu in activations):
        return getattr(operation, "data_format", None) != "channels_first"
    if type(operation) is layers.Activation:
        return operation.activation in activations
    if type(operation) is layers.ReLU:
        limited = operation.max_value is not None and keras.activations.relu6 not in activations
        return operation.threshold == 0 and not limited and keras.activations.relu in activations
    if type(operation) is layers.LeakyReLU:
        return keras.activations.leaky_relu in activations
    is_relu = type(operation).__name__ == "Relu" and type(operation).__module__.startswith("keras.")
    return is_relu and keras.activations.relu in activations


def _gives_zero(node: Node, zero: set[int], is_zero: IsZero) -> bool:
    layer, arriving = node.operation, [id(tensor) in zero for tensor in node.inputs]
    if isinstance(layer, ScalingFactor):
        return arriving[0] or is_zero(layer.factor)
    if is_addition(layer):
        return bool(arriving) and all(arriving) and not _has_constants(node)
    if type(layer) is layers.Multiply:
        return any(arriving)
    kind = exact_kind(layer)
    if kind.factors == "weights" and kind.activation_of(layer) in ZERO_AT_ZERO and not is_changed(layer):
        scale, shift = kind.scale_of(layer), kind.shift_of(layer)
        factors = [kernel.of(layer) for kernel in kind.kernels] + ([] if scale is None else [scale])
        product = (bool(kind.kernels) and all(arriving)) or any(is_zero(factor) for factor in factors)
        return product and (shift is None or is_zero(shift))
    return commutes(layer, ZERO_AT_ZERO) and all(arriving)


def _layers_within(nodes: Iterable[Node], wiring: Wiring) -> Iterator[keras.Operation]:
    """The layers that are called here and nowhere else, also inside nested models."""
    for node in nodes:
        if len(wiring.calls[id(node.operation)]) == 1:
            inner = wiring.inside.get(id(node.operation))
            yield from [node.operation] if inner is None else _layers_within(inner, wiring)


def _has_constants(node: Node) -> bool:
    """Whether a call adds something that is no tensor of the model."""
    flat = keras.tree.flatten((node.args, dict(node.kwargs)))
    return len(flat) > len(node.inputs)
