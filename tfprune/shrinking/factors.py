"""Take branches that add zeros out of a model, and scaling factors, which become part of weights."""

from collections.abc import Callable

import keras
import numpy as np

from tfprune.graph import Analysis, Node, analyse
from tfprune.graph.kinds import exact_kind, is_changed
from tfprune.graph.wiring import Wiring, is_addition
from tfprune.layers import ScalingFactor
from tfprune.parts.branches import POSITIVE, ZERO_AT_ZERO, commutes, zero_tensors
from tfprune.rewriting.cloning import duplicate
from tfprune.rewriting.edits import Edit

layers = keras.layers


def is_zero(variable: keras.Variable) -> bool:
    """Return whether a variable is zero throughout."""
    return not variable.numpy().any()


def adds_zeros(model: keras.Model) -> bool:
    """Return whether an addition of a model reads a tensor that is zero for every input, and could do without it.

    Args:
        model: A built Sequential, functional or subclassed Keras model.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = keras.layers.Dense(4, kernel_initializer="zeros")(inputs)
    >>> adds_zeros(keras.Model(inputs, keras.layers.Add()([inputs, branch])))
    True
    """
    wiring = Wiring.of(model)
    zero = zero_tensors(wiring, is_zero)
    return any(is_addition(node.operation) and _inputs_that_stay(node, zero) is not None for node in wiring.nodes)


def fold_scaling_factors(model: keras.Model) -> keras.Model:
    """Return a copy of a model without its `ScalingFactor` layers, which computes the same.

    Where an addition reads a branch that is zero, by a factor or by its weights, the branch goes, and the addition too
    if one input is left; so does a ReLU behind it that then follows on a ReLU. Every other factor is multiplied into
    the kernel and bias, or gamma and beta, of the layer before it, also through layers that commute with it, such as
    ReLU and pooling. What cannot be folded becomes a `keras.layers.Rescaling`. Channels whose factor is zero are zero
    then, and stay; `tfprune.shrink` removes them.

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.

    Returns:
        A new model, compiled like the model.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not built, or cannot be read layer by layer.

    Example:

    >>> inputs = keras.Input((4,))
    >>> branch = ScalingFactor(name="factor")(keras.layers.Dense(4, name="branch")(inputs))
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="classes")(keras.layers.Add()([inputs, branch])))
    >>> model.get_layer("factor").factor.assign(0.0).numpy().tolist()
    0.0
    >>> [layer.name for layer in fold_scaling_factors(model).layers[1:]]
    ['classes']
    """
    wiring, analysis = Wiring.of(model), analyse(model)
    plan = _Plan(wiring, analysis)
    folded, twins = duplicate(model, analysis, plan.edits)
    for variable, factor in plan.factors:
        twin = twins[id(variable)]
        twin.assign(twin.numpy().astype(np.float64) * factor)
    return folded


class _Plan:
    """What becomes of every call.

    A factor goes backwards, to the nearest layer with weights, through what commutes with it:

        conv (k, b) ---> relu ---> pool ---> factor f ---> add
        conv (f k, f b) -> relu -> pool -----------------> add       edits: the call of the factor passes its input on

    Each tensor on the way must have one reader, or the other one would be scaled too, and each layer one call. What
    commutes depends on the numbers: any factor passes an average, one of at least 0 a ReLU or a maximum as well, and
    one of 0 or 1 everything that is zero at zero, such as tanh. So where f cannot go back but some of it is zero, its
    zeros go back alone, so that `shrink` finds dead channels, and f itself becomes a Rescaling.

    Before that, additions lose their inputs that are zero. A factor whose output nothing but such an addition reads
    multiplies nothing any more, and nothing is to be scaled for it (`_is_dropped`). With one input left, the addition
    goes too, and then relu(add(relu(x), 0)) has become relu(relu(x)): the second one goes (`drop_repeated_relus`).

    Attributes:
        edits: For calls (by `Node.key`), what changes.
        factors: Variables, and what they are multiplied by.
    """

    def __init__(self, wiring: Wiring, analysis: Analysis) -> None:
        self._wiring = wiring
        self._raw = set(analysis.trace.raw)
        self.edits: dict[int, Edit] = {}
        self.factors: list[tuple[keras.Variable, np.ndarray]] = []
        self._drop_zero_branches()
        for node in wiring.nodes:
            if isinstance(node.operation, ScalingFactor):
                self._take_out(node)

    def _drop_zero_branches(self) -> None:
        zero = zero_tensors(self._wiring, is_zero)
        for node in self._wiring.nodes:
            kept = _inputs_that_stay(node, zero) if is_addition(node.operation) else None
            if kept is not None:
                self.edits[node.key] = Edit(inputs=kept)
        drop_repeated_relus(self._wiring, self.edits)

    def _take_out(self, node: Node) -> None:
        layer = node.operation
        factor = layer.factor.numpy().astype(np.float64)
        self.edits[node.key] = Edit(inputs=(0,))
        if self._is_dropped(node.outputs[0]):
            return
        found = self._scales(node.inputs[0], factor, POSITIVE if (factor >= 0).all() else POSITIVE[:1])
        if found is None and (factor == 0).any():
            # Zeros pass more activations than other factors do, and what is zero can be removed.
            self.factors += self._scales(node.inputs[0], (factor != 0).astype(np.float64), ZERO_AT_ZERO) or []
        if found is None and not (factor == 1).all():
            count = sum(edit.after is not None for edit in self.edits.values())
            name = layer.name if len(self._wiring.calls[id(layer)]) == 1 else f"{layer.name}_{count}"
            scale = factor.astype("float32").tolist()
            self.edits[node.key] = Edit((0,), after=layers.Rescaling(scale, name=name, dtype=layer.dtype_policy))
        self.factors += found or []

    def _is_dropped(self, tensor: keras.KerasTensor) -> bool:
        """Whether only additions that leave it out read a tensor, if at several removes."""
        readers = self._wiring.readers.get(id(tensor), [])
        return bool(readers) and all(self._drops(reader, tensor) for reader in readers)

    def _drops(self, reader: Node | None, tensor: keras.KerasTensor) -> bool:
        if reader is None:
            return self._is_dropped_outside(tensor)
        edit = self.edits.get(reader.key)
        if is_addition(reader.operation) and edit is not None and edit.inputs is not None:
            return all(reader.inputs[index] is not tensor for index in edit.inputs)
        passes = isinstance(reader.operation, ScalingFactor) or commutes(reader.operation, ZERO_AT_ZERO)
        return passes and self._is_dropped(reader.outputs[0])

    def _is_dropped_outside(self, tensor: keras.KerasTensor) -> bool:
        found = [
            node.outputs[index]
            for key, view in self._wiring.views.items()
            for index, output in enumerate(view.outputs)
            for node in self._wiring.calls[key]
            if output is tensor
        ]
        return bool(found) and all(self._is_dropped(outer) for outer in found)

    def _scales(
        self, tensor: keras.KerasTensor, factor: np.ndarray, through: tuple[Callable[..., object], ...]
    ) -> list[tuple[keras.Variable, np.ndarray]] | None:
        """The variables to multiply so that a tensor, which only one call reads, is multiplied by a factor."""
        while len(self._wiring.readers.get(id(tensor), [])) == 1 and id(tensor) in self._wiring.makers:
            node, index = self._wiring.makers[id(tensor)]
            operation = node.operation
            if len(self._wiring.calls[id(operation)]) > 1:
                return None
            if id(operation) in self._wiring.views:
                tensor = self._wiring.views[id(operation)].outputs[index]
            elif isinstance(operation, ScalingFactor) or commutes(operation, through):
                tensor = node.inputs[0]
            else:
                found = _scales_of(operation, factor, through)
                usable = found is not None and not self._raw & {id(variable) for variable, _ in found}
                return found if usable else None
        return None


def drop_repeated_relus(wiring: Wiring, edits: dict[int, Edit]) -> None:
    """Leave out every ReLU that directly follows on another one, now that additions between them go.

    Args:
        wiring: The wiring of a model.
        edits: What changes about its calls; those of such ReLUs are added.
    """
    for node in wiring.nodes:
        if _is_relu(node.operation) and _repeats_relu(node, wiring, edits):
            edits[node.key] = Edit(inputs=(0,))


def _repeats_relu(node: Node, wiring: Wiring, edits: dict[int, Edit]) -> bool:
    tensor, dropped = node.inputs[0], False
    while id(tensor) in wiring.makers:
        maker = wiring.makers[id(tensor)][0]
        edit = edits.get(maker.key)
        if edit is None or not edit.skips:
            return dropped and _is_relu(maker.operation)
        assert edit.inputs is not None
        tensor, dropped = maker.inputs[edit.inputs[0]], True
    return False


def _inputs_that_stay(node: Node, zero: set[int]) -> tuple[int, ...] | None:
    """Which inputs of an addition stay when zeros go; `None` if all of them do."""
    kept = tuple(index for index, tensor in enumerate(node.inputs) if id(tensor) not in zero)
    output = node.outputs[0]
    alike = all(node.inputs[i].shape == output.shape and node.inputs[i].dtype == output.dtype for i in kept)
    return kept if 0 < len(kept) < len(node.inputs) and alike else None


def _scales_of(
    layer: keras.layers.Layer, factor: np.ndarray, through: tuple[Callable[..., object], ...]
) -> list[tuple[keras.Variable, np.ndarray]] | None:
    """The variables of a layer to multiply so that its output is multiplied by a factor; `None` if there are none."""
    kind = exact_kind(layer)
    if kind.factors != "weights" or kind.activation_of(layer) not in through or is_changed(layer):
        return None
    if factor.ndim and _is_channels_first(layer):
        return None
    scale, shift = kind.scale_of(layer), kind.shift_of(layer)
    if kind.kernels:
        kernel = kind.kernels[-1].of(layer)
        scaled = [(kernel, kind.kernels[-1].along_outputs(kernel, factor))]
    elif scale is not None and (not factor.ndim or scale.shape == factor.shape):
        scaled = [(scale, factor)]
    else:
        return None
    return scaled if shift is None else [*scaled, (shift, factor)]


def _is_channels_first(layer: keras.layers.Layer) -> bool:
    return getattr(layer, "data_format", None) == "channels_first" or getattr(layer, "axis", -1) in (1, [1])


def _is_relu(operation: keras.Operation) -> bool:
    """Whether an operation is max(0, x)."""
    if type(operation) is layers.ReLU:
        return operation.max_value is None and operation.threshold == operation.negative_slope == 0
    if type(operation) is layers.Activation:
        return operation.activation is keras.activations.relu
    return type(operation).__name__ == "Relu" and type(operation).__module__.startswith("keras.")
