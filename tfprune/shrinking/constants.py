"""Fold the constants that removed channels still carry into the biases of the layers that read them."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from tfprune.graph import Analysis, functional, walk
from tfprune.graph.liveness import CONSTANT, Arrival, arrivals

UNKNOWN_SIZE = 64
"""Stands for an unknown spatial size in a probe."""


def fold_constants(model: keras.Model, analysis: Analysis, alive: np.ndarray) -> dict[int, np.ndarray]:
    """Return new biases for the layers that read constants on channels that go.

    The constants are measured on one forward pass, as the mean over all positions of the feature map: near the
    border of a zero-padded map the value differs, and the mean is the best single number.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        alive: One bool per channel number; False for those that go.

    Returns:
        For each layer (by id) whose bias changes, the new bias before removal; empty if all that goes is zero.
    """
    found = [
        arrival
        for arrival in arrivals(analysis.trace, analysis.labels)
        if ((arrival.level == CONSTANT) & ~alive[arrival.binding.channels]).any()
    ]
    if not found:
        return {}
    tensors = _evaluate(
        model, probe_inputs(model), [arrival.call.node.inputs[0] for arrival in found], analysis.trace.views
    )
    biases = {}
    for arrival in found:
        bias = _folded_bias(arrival, tensors[id(arrival.call.node.inputs[0])], alive)
        if bias is not None:
            biases[id(arrival.call.layer)] = bias
    return biases


def probe_inputs(model: keras.Model) -> list[np.ndarray]:
    """Return one seeded random sample for each input of a model; zeros for integer inputs."""
    generator = np.random.default_rng(0)
    samples = []
    for tensor in functional(model).inputs:
        shape = [1, *(UNKNOWN_SIZE if size is None else size for size in tensor.shape[1:])]
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        samples.append(generator.normal(size=shape).astype("float32") if is_float else np.zeros(shape, tensor.dtype))
    return samples


def run(model: keras.Model, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of a model at inference, for a flat list of inputs.

    Args:
        model: A built Sequential or functional model.
        samples: One array per input, with a batch axis.

    Returns:
        One array per output.
    """
    view = functional(model)
    outputs = view(list(samples), training=False)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def _folded_bias(arrival: Arrival, tensor: np.ndarray, alive: np.ndarray) -> np.ndarray | None:
    layer, binding = arrival.call.layer, arrival.binding
    axis = binding_axis(arrival)
    constants = np.moveaxis(tensor, axis, -1).reshape(-1, tensor.shape[axis]).mean(axis=0, dtype=np.float64)
    constants = np.where(alive[binding.channels], 0.0, constants)
    if not constants.any():
        return None
    kernel = np.moveaxis(binding.variable.numpy().astype(np.float64), binding.axis, 0)
    shift = constants @ kernel.reshape(len(constants), -1, kernel.shape[-1]).sum(axis=1)
    return shift + (layer.bias.numpy() if layer.bias is not None else 0.0)


def binding_axis(arrival: Arrival) -> int:
    """Return the axis of the tensor, with the batch, along which a layer reads its input channels."""
    return 1 if getattr(arrival.call.layer, "data_format", None) == "channels_first" else -1


def _evaluate(
    model: keras.Model,
    inputs: Sequence[np.ndarray],
    wanted: Sequence[keras.KerasTensor],
    views: Mapping[int, keras.Model],
) -> dict[int, np.ndarray]:
    """Run a model and return the values of symbolic tensors inside it, also inside nested models."""
    view = functional(model)
    inside = [(node, views[id(node.operation)]) for node in walk(model) if id(node.operation) in views]
    wrapped = [(node, id(getattr(node.operation, "layer", None))) for node in walk(model)]
    steps = [(node, views[key]) for node, key in wrapped if key in views]  # models that are called for each time step
    local = {id(tensor) for node in walk(model) for tensor in (*node.inputs, *node.outputs)}
    taps = [tensor for tensor in wanted if id(tensor) in local]
    taps += [tensor for node, _ in (*inside, *steps) for tensor in node.inputs]
    values: dict[int, np.ndarray] = {}
    if taps:
        outputs = run(keras.Model(view.inputs, taps, name=view.name), inputs)
        values = {id(tensor): value for tensor, value in zip(taps, outputs, strict=True)}
    for node, inner in inside:
        values |= _evaluate(inner, [values[id(tensor)] for tensor in node.inputs], wanted, views)
    for node, inner in steps:
        value = values[id(node.inputs[0])]
        values |= _evaluate(inner, [value.reshape(-1, *value.shape[2:])], wanted, views)
    return values
