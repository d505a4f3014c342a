"""The flow through a network that is made linear and positive: what its architecture says about weights."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.common.temporarily import replaced_calls
from tfprune.data import inputs_of
from tfprune.graph.chains import chains
from tfprune.graph.kinds import find_kind

L = keras.layers
_PASSED = (
    *(L.Activation, L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Softmax, L.Rescaling, L.Normalization),
    *(L.Dropout, L.GaussianNoise, L.GaussianDropout, L.AlphaDropout),
)
"""Layers without kernels that bend, shift or scale what passes."""
_NORMALIZING = (L.LayerNormalization, L.GroupNormalization, L.RMSNormalization)
"""Layers that measure what they divide by."""
_ACTIVATIONS = ("activation", "recurrent_activation")


class _Double(keras.DTypePolicy):
    """Compute in float64 with whatever the variables are: layers cast only if the two differ."""

    def __init__(self) -> None:
        super().__init__("float32")

    @property
    def compute_dtype(self) -> str:
        return "float64"


class SynapticFlow:
    """Measures d log R / d|w| for each weight: R is the sum of all outputs for an input of ones, of the network made
    linear and positive.

    All weights count by their absolute value; activations, biases and means are left out, and normalization only
    multiplies. At initialization, where biases and means are zero, that is what the authors of SynFlow compute. The
    logarithm divides every number by R, and the forward pass runs in float64, as R overflows float32 in deep networks.

    Reference: Tanaka et al., Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow,
    NeurIPS 2020, https://arxiv.org/abs/2006.05467

    Args:
        model: A built model.
        variables: The weights for which the flow is measured.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "relu"), keras.layers.Dense(1)])
    >>> first, second = [layer.kernel for layer in model.layers]
    >>> model.set_weights([np.array([[1, -1], [1, 1]]), np.zeros(2), np.array([[3], [-1]]), np.zeros(1)])
    >>> flow = SynapticFlow(model, [first, second])()  # R = 3 * 2 + 1 * 2
    >>> (flow[first.path] * np.abs(first.numpy())).tolist()
    [[0.375, 0.125], [0.375, 0.125]]
    """

    def __init__(self, model: keras.Model, variables: Sequence[keras.Variable]) -> None:
        self._model = model
        self._variables = variables
        self._inputs = inputs_of(model)
        if self._inputs.each is None:
            raise ValueError(
                f"The shape of the inputs of {model.name!r} is not known, as its class has a call of its own, so that "
                "no flow can be sent through it. Use a criterion that sees data or the weights, such as LAMP()."
            )
        self._step = tf.function(self._gradients, autograph=False)

    def __call__(self) -> dict[str, np.ndarray]:
        """Return the flow for the weights as they are now, by path, float32 arrays of their shapes.

        Raises:
            ValueError: If nothing flows from the inputs to the outputs, or it cannot be told.
        """
        total, gradients = self._step()
        if not np.isfinite(total.numpy()) or total.numpy() == 0:
            raise ValueError(
                f"Nothing can be said about the flow through {self._model.name!r}: its outputs sum to {total.numpy()} "
                "when all weights are positive. A layer may be empty, or weights not finite."
            )
        return {variable.path: found.numpy() for variable, found in zip(self._variables, gradients, strict=True)}

    def _gradients(self) -> tuple[Any, list[Any]]:
        model = self._model
        shifts = {id(variable) for layer in _layers(model) for variable in _shifts(layer)}
        values = {id(v): _positive(v, id(v) in shifts) for v in model.variables}
        sources = [values[id(variable)] for variable in self._variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape, _linear(_layers(model)):
            for source in sources:
                tape.watch(source)
            with keras.StatelessScope([(variable, values[id(variable)]) for variable in model.variables]):
                outputs = model(self._ones(), training=False)
            total = tf.add_n([tf.reduce_sum(tf.cast(each, tf.float64)) for each in keras.tree.flatten(outputs)])
            flow = tf.math.log(total)
        found = tape.gradient(flow, sources, unconnected_gradients="zero")
        return total, [tf.convert_to_tensor(each) for each in found]

    def _ones(self) -> Any:
        inputs = self._inputs
        shapes = [([1, *(size or 1 for size in one.shape)], one.dtype or "float32") for one in inputs.each or ()]
        return inputs.pack(tf.ones(*each) for each in shapes)


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return list({id(chain[-1]): chain[-1] for chain in chains(model)}.values())


def _shifts(layer: keras.layers.Layer) -> list[keras.Variable]:
    mean = [layer.moving_mean] if isinstance(layer, L.BatchNormalization) else []
    shift = find_kind(layer).shift_of(layer)
    return mean + ([] if shift is None else [shift])


def _positive(variable: keras.Variable, is_shift: bool) -> Any:
    value = tf.convert_to_tensor(variable.value)
    if not value.dtype.is_floating:
        return value
    return tf.zeros_like(value) if is_shift else tf.abs(value)


@contextlib.contextmanager
def _linear(layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Let layers be linear and compute in float64 while the context is open."""
    activations_of = {id(layer): {n: vars(layer)[n] for n in _ACTIVATIONS if n in vars(layer)} for layer in layers}
    before = [(layer, layer.dtype_policy, activations_of[id(layer)]) for layer in layers]
    try:
        for layer, _, activations in before:
            layer.dtype_policy = _Double()
            for name in activations:
                setattr(layer, name, keras.activations.linear)
        calls = ((layer, _linear_call(layer)) for layer in layers)
        with replaced_calls((layer, call) for layer, call in calls if call is not None):
            yield
    finally:
        for layer, policy, activations in before:
            layer.dtype_policy = policy
            for name, activation in activations.items():
                setattr(layer, name, activation)


def _linear_call(layer: keras.layers.Layer) -> Callable[..., Any] | None:
    """What takes the place of a layer's call; None where it is linear already."""
    if isinstance(layer, _PASSED):
        return _passing
    if isinstance(layer, _NORMALIZING):
        return _scaling(layer)
    return _embedding(layer) if isinstance(layer, L.Embedding) else None


def _passing(inputs: Any, *args: Any, **kwargs: Any) -> Any:
    return inputs


def _scaling(layer: keras.layers.Layer) -> Callable[..., Any]:
    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        scale = find_kind(layer).scale_of(layer)
        return inputs if scale is None else inputs * scale  # along the last axis, as Keras lays it out

    return call


def _embedding(layer: keras.layers.Embedding) -> Callable[..., Any]:
    """As if every token were there at once: the input of ones of the product that an embedding stands for."""

    def call(inputs: Any) -> Any:
        row = tf.reduce_sum(tf.cast(layer.embeddings, tf.float64), axis=0)
        return tf.ones_like(inputs, tf.float64)[..., None] * row

    return call
