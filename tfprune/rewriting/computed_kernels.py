"""A layer that computes with other kernels than those that it trains."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tfprune.graph import Node
from tfprune.graph.costs import Sizes, cost, multiply_accumulates


@keras.saving.register_keras_serializable(package="tfprune")
class ComputedKernels(keras.layers.Wrapper):
    """Calls a layer with kernels that other layers make of those that it holds.

    The kernels of the layer train; how their gradient comes about is up to what makes the others.

    Args:
        layer: The layer, of any class, with any arguments.
        positions: Which of `layer.variables` are replaced, each by its position.
        makers: For each of them the layer that makes the kernel, of the same shape and dtype float32, from it. If what
            it makes has few values, its `channel_axes` say along which axes positions do not share them.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:

    >>> inner = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> layer = ComputedKernels(inner, [0], [keras.layers.Rescaling(3.0)])
    >>> layer(keras.ops.ones((1, 2))).numpy().tolist(), inner.kernel.numpy().tolist()
    ([[6.0]], [[1.0], [1.0]])
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        positions: Sequence[int],
        makers: Sequence[keras.layers.Layer],
        **kwargs: Any,
    ) -> None:
        # Only the layer itself casts for mixed precision: kernels are made in the precision in which they train.
        super().__init__(layer, autocast=False, **kwargs)
        self.positions, self.makers = list(positions), list(makers)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        """Leave it to the layer, which may read several tensors."""
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer."""
        if not self.layer.built:
            self.layer(*args, **kwargs)
        with holding(self.layer, {position: self.kernel(position) for position in self.positions}) as scope:
            outputs = self.layer(*args, **kwargs)
        for loss in scope.losses:  # the scope keeps them from the layer
            self.add_loss(loss)
        for variable in self.layer.non_trainable_variables:  # and what a call changes: random states, moving averages
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return outputs

    def kernel(self, position: int) -> Any:
        """Return what the layer computes with in place of one of its variables.

        Args:
            position: One of `positions`.

        Returns:
            A float32 tensor of the variable's shape.
        """
        maker = self.makers[self.positions.index(position)]
        return maker(ops.cast(ops.convert_to_tensor(self.layer.variables[position]), "float32"))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer returns."""
        if not self.layer.built:
            self.layer(*args, **kwargs)
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Return the mask that the layer returns."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        makers = [keras.saving.serialize_keras_object(maker) for maker in self.makers]
        return {**super().get_config(), "positions": self.positions, "makers": makers}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ComputedKernels":
        """Make the layer from `get_config`."""
        makers = [keras.saving.deserialize_keras_object(each, custom_objects) for each in config["makers"]]
        made: ComputedKernels = super().from_config({**config, "makers": makers}, custom_objects)
        return made


def holding(layer: keras.layers.Layer, values: Mapping[int, Any]) -> keras.StatelessScope:
    """Return a scope in which some variables of a layer have other values; losses of the layer are kept in it.

    Args:
        layer: A built layer.
        values: By the position in `layer.variables`, the values.

    Returns:
        The scope.
    """
    # What a scope around this one says of the other variables must hold inside as well.
    mapping = [
        (variable, values[position] if position in values else ops.convert_to_tensor(variable))
        for position, variable in enumerate(layer.variables)
    ]
    return keras.StatelessScope(state_mapping=mapping, collect_losses=True)


@cost(ComputedKernels)
def _inner_cost(node: Node, sizes: Sizes) -> Any:
    return multiply_accumulates(dataclasses.replace(node, operation=node.operation.layer), sizes)
