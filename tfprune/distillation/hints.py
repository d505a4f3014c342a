"""Hints: what layers of the student are to compute, told by layers of the teacher."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfprune.graph.chains import Places
from tfprune.statistics.taps import Taps

Pairs = Sequence[tuple[keras.layers.Layer, keras.layers.Layer]]
"""A layer of the student, and one of the teacher, of which it is to compute the outputs."""

Widths = Sequence[tuple[int, int]]
"""Of each pair, how many channels the student's layer has, and the teacher's."""


@keras.saving.register_keras_serializable("tfprune")
class Projections(keras.layers.Layer):
    """What makes the student's channels comparable where the teacher has another number: learned 1x1 convolutions.

    Args:
        widths: See `Widths`; where the two are equal, channels stay as they are.
        **kwargs: `name` and others of a Keras layer.

    Example:

    >>> projections = Projections([(2, 3), (4, 4)])
    >>> [tuple(each.shape) for each in projections([ops.ones((1, 5, 5, 2)), ops.ones((1, 4))])]
    [(1, 5, 5, 3), (1, 4)]
    """

    def __init__(self, widths: Widths, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.widths = tuple((int(own), int(other)) for own, other in widths)
        differ = [(index, *each) for index, each in enumerate(self.widths) if each[0] != each[1]]
        self._indices = [index for index, *_ in differ]
        self._kernels = [self.add_weight((own, to), "glorot_uniform", name=f"kernel_{at}") for at, own, to in differ]
        self._biases = [self.add_weight((to,), "zeros", name=f"bias_{at}") for at, _, to in differ]
        self.built = True

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        """Return what is comparable with the teacher's, one for each."""
        outputs = list(inputs)
        for index, kernel, bias in zip(self._indices, self._kernels, self._biases, strict=True):
            outputs[index] = ops.matmul(outputs[index], kernel) + bias
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Return what makes this layer again."""
        return {**super().get_config(), "widths": self.widths}


def check_layers(role: str, model: keras.Model, layers: Sequence[Any]) -> None:
    """Raise if these are not layers of the model.

    Args:
        role: What the model is, for messages.
        model: The model.
        layers: What was given.

    Raises:
        TypeError: If one is not a layer.
        ValueError: If one lies in another model.
    """
    known = Places.of(model).of_layer
    for layer in layers:
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                "features must be pairs of layer objects, (layer of the student, layer of the teacher). "
                f"Received: {layer!r}. Take model.get_layer(name)."
            )
        if id(layer) not in known:
            raise ValueError(
                f"features: the layer {layer.name!r} is no layer of the {role} {model.name!r}. The first of each pair "
                "is one of the student, the second one of the teacher."
            )


def heard(taps: Taps, layers: Sequence[keras.layers.Layer], owner: str) -> list[Any]:
    """Return the outputs of layers in a call of their model.

    Args:
        taps: What has passed them.
        layers: The layers.
        owner: What the model is called.

    Raises:
        ValueError: If a layer was not called once, or returned other than one tensor.
    """
    found = []
    for layer in layers:
        outputs = [tensor for call in taps.of(layer) for tensor in call.outputs]
        if len(outputs) != 1:
            raise ValueError(
                f"features: the layer {layer.name!r} of {owner!r} returns {len(outputs)} tensors in a step, and a hint "
                "is one tensor. Take a layer that is called once, such as the one behind it."
            )
        found += outputs
    return found


def widths_of(pairs: Pairs, own: Sequence[Any], other: Sequence[Any]) -> Widths:
    """Return the widths of hints, or raise if more than the width differs.

    Args:
        pairs: The layers.
        own: What those of the student return.
        other: What those of the teacher return.

    Raises:
        ValueError: If positions differ, which no projection makes up for.
    """
    for (student, teacher), left, right in zip(pairs, own, other, strict=True):
        sizes = [tuple(each.shape[1:-1]) for each in (left, right)]
        if (
            len(left.shape) < 2
            or len(sizes[0]) != len(sizes[1])
            or any(None not in pair and pair[0] != pair[1] for pair in zip(*sizes, strict=True))
        ):
            raise ValueError(
                f"features: {student.name!r} of the student returns {tuple(left.shape)}, {teacher.name!r} of the "
                f"teacher {tuple(right.shape)}. Only the last size may differ: take layers of the same resolution."
            )
    return [(left.shape[-1], right.shape[-1]) for left, right in zip(own, other, strict=True)]


def hint_loss(own: Sequence[Any], other: Sequence[Any], sample_weight: Any) -> Any:
    """Return the mean squared differences of hints, summed over the pairs.

    Args:
        own: What the student has, projected.
        other: What the teacher has.
        sample_weight: One weight for each sample, or None.
    """
    loss, total = keras.losses.MeanSquaredError(), 0.0
    for left, right in zip(own, other, strict=True):
        rows = [ops.reshape(ops.cast(each, "float32"), (ops.shape(each)[0], -1)) for each in (right, left)]
        total += loss(ops.stop_gradient(rows[0]), rows[1], sample_weight=sample_weight)
    return total
