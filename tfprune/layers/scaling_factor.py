"""A layer that multiplies a branch or its channels by trained factors."""

from typing import Any, Literal

import keras
import numpy as np

from tfprune.graph import Call, rule
from tfprune.graph.wiring import Wiring

Per = Literal["block", "channel"]


@keras.saving.register_keras_serializable(package="tfprune")
class ScalingFactor(keras.layers.Layer):
    """Multiplies its input by a trained factor, which starts at 1.

    Put it at the end of a residual branch, `keras.layers.Add()([x, ScalingFactor()(branch)])`, or after any layer, as
    in `ScalingFactor(per="channel")(layer(x))`; `with_scaling_factors` puts it into a model that exists.
    `tfprune.callbacks.SparseStructureSelection` drives the factors of what is not needed to zero, and
    `tfprune.shrink` then removes that, folds the other factors into weights and returns a plain Keras model.

    Reference: Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018,
    https://arxiv.org/abs/1707.01213

    Args:
        per: `"block"` for one factor for the whole tensor, `"channel"` for one for each position on the last axis.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: If `per` is neither; when it is called, if it needs one factor per channel and the last axis has
            no fixed size.

    Example:

    >>> layer = ScalingFactor(per="channel")
    >>> outputs = layer(np.array([[1.0, 2.0]], "float32"))
    >>> layer.factor.assign([3.0, 0.0]).numpy().tolist(), layer(outputs).numpy().tolist()
    ([3.0, 0.0], [[3.0, 0.0]])
    """

    def __init__(self, per: Per = "block", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if per not in ("block", "channel"):
            raise ValueError(f"per must be 'block' or 'channel'. Received: {per!r}.")
        self.per = per
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the factor."""
        if self.per == "channel" and input_shape[-1] is None:
            raise ValueError(
                f"{self.name!r} needs a fixed number of channels on the last axis. Received the shape {input_shape}."
            )
        shape = () if self.per == "block" else (input_shape[-1],)
        self.factor = self.add_weight(shape=shape, initializer="ones", name="factor")

    def call(self, inputs: Any) -> Any:
        """Multiply."""
        return inputs * self.factor

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "per": self.per}


@rule(ScalingFactor)
def _scaling_factor(call: Call) -> np.ndarray:
    if call.layer.per == "channel":
        call.bind(call.layer.factor, 0, call.along(call.inputs[0], -1), "affine", "scale")
    return call.inputs[0]


def scaling_factors(model: keras.Model) -> tuple[ScalingFactor, ...]:
    """Return the `ScalingFactor` layers of a model, also inside nested models, in the order in which data flows.

    Args:
        model: A built Sequential, functional or subclassed Keras model.

    Returns:
        The layers, each once.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), ScalingFactor(name="factor")])
    >>> [layer.name for layer in scaling_factors(model)]
    ['factor']
    """
    found = {id(node.operation): node.operation for node in Wiring.of(model).nodes}
    return tuple(layer for layer in found.values() if isinstance(layer, ScalingFactor))
