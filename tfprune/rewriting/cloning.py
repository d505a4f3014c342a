"""A smaller copy of a model: its layers made anew from edited configs, with the weights that stay."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph import Analysis, Node, find_rule
from tfprune.graph.making import made_from_config
from tfprune.graph.rules.channel_axes import resized
from tfprune.graph.rules.registry import count_alive
from tfprune.graph.walk import Shape
from tfprune.rewriting.edits import Edits
from tfprune.rewriting.engine import Rewriter
from tfprune.rewriting.kept_positions import remember
from tfprune.rewriting.optimizer_state import SlicedVariable, carry_optimizer, check_carries


def rebuild(model: keras.Model, analysis: Analysis, alive: np.ndarray, biases: dict[int, np.ndarray]) -> keras.Model:
    """Return a copy of a model in which only some channels stay.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        alive: One bool per channel number; False for those that go.
        biases: For layers (by id), the biases that take the place of theirs, before removal.

    Returns:
        A new model, compiled like the model.
    """
    small = _Resizer(analysis, alive, biases).rewrite(model)
    remember(small, model, analysis, alive)
    return small


def rebuild_in_training(
    model: keras.Model, analysis: Analysis, alive: np.ndarray
) -> tuple[keras.Model, list[SlicedVariable]]:
    """Return a copy in which only some channels stay, whose optimizer goes on where the model's is.

    Args:
        model: The model, compiled; it is not changed.
        analysis: Its analysis.
        alive: One bool per channel number; False for those that go, all of which carry zeros.

    Returns:
        A new model, and which part of the model's variables each of its variables holds.

    Raises:
        ValueError: If the optimizer's state cannot be carried, or weights would have to change so that a layer computes
            the same with fewer channels.
    """
    check_carries(model)
    resizer = _Resizer(analysis, alive)
    small = resizer.rewrite(model)
    if any(factor != 1 for factor in resizer.factors.values()):
        raise ValueError(
            f"A layer of {model.name!r} divides by how many channels it has, so that weights change when some of them "
            "go, and train in another way. Shrink without carry_optimizer, with a new optimizer."
        )
    remember(small, model, analysis, alive)
    variables = [
        SlicedVariable(source, target, resizer.kept(source))
        for layer, twin in resizer.copies.pairs
        for source, target in zip(layer.variables, twin.variables, strict=True)
    ]
    carry_optimizer(model, small, variables)
    return small, variables


def rebuild_anew(model: keras.Model, analysis: Analysis, counts: np.ndarray) -> keras.Model:
    """Return a model of the same architecture with other widths and new weights.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        counts: For each channel number, how many channels take its place; an int array, the same for tied channels.

    Returns:
        A new model, compiled like the model. Preprocessing layers keep what they learned in `adapt`.
    """
    return _Anew(analysis, counts).rewrite(model)


def duplicate(
    model: keras.Model, analysis: Analysis, edits: Edits | None = None
) -> tuple[keras.Model, dict[int, keras.Variable]]:
    """Return a whole copy of a model, and which of its variables stands for which (by id) of the model.

    Layers made of layers come back as functional models, so the weights of the two may stand in another order.

    Args:
        model: The model; it is not changed.
        analysis: Its analysis.
        edits: What changes around calls; `None` for nothing.

    Returns:
        The copy and the variables.
    """
    alive = np.ones(analysis.trace.num_channels, bool)
    resizer = _Resizer(analysis, alive, edits=edits)
    copy = resizer.rewrite(model)
    remember(copy, model, analysis, alive)
    variables = [zip(layer.variables, twin.variables, strict=True) for layer, twin in resizer.copies.pairs]
    return copy, {id(variable): twin for each in variables for variable, twin in each}


class _Resizer(Rewriter):
    """Makes layers of the sizes that stay, with the weights that stay."""

    def __init__(
        self,
        analysis: Analysis,
        alive: np.ndarray,
        biases: Mapping[int, np.ndarray] | None = None,
        edits: Edits | None = None,
    ) -> None:
        super().__init__(edits)
        self._trace, self._alive, self._biases = analysis.trace, alive, biases or {}
        self._calls = {call.node.key: call for call in reversed(analysis.trace.calls)}
        self._first = {id(call.layer): call for call in reversed(analysis.trace.calls)}
        self.factors: dict[int, float] = {}

    def opened(self, node: Node) -> keras.Model | None:
        return self._trace.views.get(id(node.operation))

    def shapes(self, operation: Any, model: keras.Model) -> Sequence[Shape]:
        entries = self._trace.entries.get(id(operation))
        if entries is None:  # the model itself, whose inputs stay
            return super().shapes(operation, model)
        flows = [self._trace.flows[entry] for entry in entries]
        return [resized(tensor.shape, flow, self._alive) for tensor, flow in zip(model.inputs, flows, strict=True)]

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = find_rule(node.operation)
        if rule is not None and rule.rearrange is not None:
            args, kwargs = rule.rearrange(self._calls[node.key], args, kwargs, self._alive)
        return self.copy(node.operation)(*args, **kwargs)

    def copy(self, layer: Any) -> Any:
        return self.copies.once(id(layer), lambda: self._resized(layer))

    def _resized(self, layer: Any) -> Any:
        rule = find_rule(layer)
        inner = getattr(layer, "layer", None)
        if id(inner) in self._trace.views:  # a wrapper that calls a model for each time step
            options = {**layer.get_config(), "layer": self._model(inner, self._trace.views[id(inner)])}
            return type(layer)(**options)
        whole = self._whole(layer) if rule is None else None
        if whole is not None:
            return whole
        try:
            config = layer.get_config()
        except NotImplementedError:
            # An operation of `keras.ops` has no state, and not all of them have a config.
            same = self.copies.whole(layer) if isinstance(layer, keras.layers.Layer) else layer
            if same is None:
                raise
            return same
        if rule is not None and rule.resize is not None:
            rule.resize(self._first[id(layer)], config, self._alive)
        if rule is not None and rule.rescale is not None:
            self.factors.update(rule.rescale(self._first[id(layer)], self._alive))
        sizes = self._trace.config_sizes.get(id(layer), {})
        config |= {key: count_alive(channels, self._alive) for key, channels in sizes.items()}
        if id(layer) in self._biases and "use_bias" in config:  # an EinsumDense has its bias already
            config["use_bias"] = True
        if isinstance(layer, keras.layers.Layer):
            return self.copies.add(layer, config, self._fill)
        return made_from_config(layer, config)

    def _whole(self, layer: Any) -> Any:
        """The copy of a layer that nobody can resize, which is called on what the layer is called on."""
        return None if id(layer) in self._trace.config_sizes else self.copies.whole(layer)

    def _fill(self, layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
        bias = self._biases.get(id(layer))
        targets = [variable for variable in copy.variables if bias is None or variable is not copy.bias]
        sources = [variable for variable in layer.variables if bias is None or variable is not layer.bias]
        for variable, target in zip(sources, targets, strict=True):
            value = self._what_stays(variable)
            target.assign(value * self.factors[id(variable)] if id(variable) in self.factors else value)
        if bias is not None:
            made = self._trace.bindings[id(layer.kernel), len(layer.kernel.shape) - 1].channels
            copy.bias.assign(bias[self._alive[made]])

    def kept(self, variable: keras.Variable) -> tuple[np.ndarray, ...]:
        """Return for each axis of a variable the positions that stay."""
        bound = [self._trace.bindings.get((id(variable), axis)) for axis in range(len(variable.shape))]
        return tuple(
            np.arange(size) if each is None else np.flatnonzero(self._alive[each.channels])
            for size, each in zip(variable.shape, bound, strict=True)
        )

    def _what_stays(self, variable: keras.Variable) -> np.ndarray:
        value: np.ndarray = variable.numpy()
        for axis in range(value.ndim):
            binding = self._trace.bindings.get((id(variable), axis))
            if binding is not None and not self._alive[binding.channels].all():
                value = value.compress(self._alive[binding.channels], axis=axis)
        return value


class _Anew(_Resizer):
    """Makes layers of other sizes, with the weights that their initializers draw."""

    def _whole(self, layer: Any) -> Any:
        return None

    def _fill(self, layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
        pass
