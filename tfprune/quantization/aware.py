"""`quantize_aware`: a model that trains with the rounding that int8 will bring."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

import keras
import numpy as np

from tfprune.common.checks import check_choice
from tfprune.data.inputs import name_in_file
from tfprune.graph import Node, check_traceable, functional, walk
from tfprune.graph.exclude import Exclude
from tfprune.quantization.aware_layers import KeepFloat, QuantizeActivation, QuantizeWeights, Range
from tfprune.quantization.finite import check_finite_weights
from tfprune.quantization.flattening import flattened
from tfprune.quantization.forward_folding import fold_normalizations
from tfprune.quantization.int8_rules import Kind, Rule
from tfprune.quantization.normalization import folded_weights
from tfprune.quantization.placement import Operators, Placement, Site, place
from tfprune.rewriting.computed_kernels import ComputedKernels
from tfprune.rewriting.engine import Rewriter

Normalization = Literal["train", "freeze", "fold"]


def quantize_aware(
    model: keras.Model,
    *,
    exclude: Exclude = None,
    batch_normalization: Normalization = "train",
    keep_zeros: bool = True,
    momentum: float = 0.99,
) -> keras.Model:
    """Return a model to `fit` as usual that computes, in float, what its int8 `.tflite` will.

    Kernels are rounded to int8 with one scale per output channel (`Dense`: one scale), and the numbers between the
    operators to 256 levels over ranges that follow training, at the places where the converter puts them: behind
    BatchNormalization and ReLU, behind additions and poolings, with one range for what is concatenated.
    `tfprune.export` then needs no calibration, and the file computes what the model does.

    Fine-tune a trained model, with a tenth of its learning rate or less: one to a few epochs are mostly enough. The
    ranges start with the first training batch; before it the model rounds its weights only. Models inside the model
    are laid flat, activations stand behind their layers, and a separable convolution is its two convolutions;
    `tfprune.strip` returns this flat model without rounding.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, https://arxiv.org/abs/1712.05877; Krishnamoorthi, "Quantizing deep convolutional networks
    for efficient inference", 2018, https://arxiv.org/abs/1806.08342

    Args:
        model: A built Sequential, functional or subclassed Keras model; it is not changed.
        exclude: Layers to leave in float: a list of layer objects, or a function from a layer to bool; a nested model,
            wrapper or custom layer stands for all layers inside it.
        batch_normalization: What becomes of a BatchNormalization behind a layer with a kernel: `"train"` leaves it as
            it is, `"freeze"` fixes its statistics and weights, `"fold"` puts it into the weights before. Behind
            `Dense`, which has one scale only, it is always folded. Into weights that share values (`cluster_aware`) it
            is never folded: it is frozen, or an operator of its own. One behind an activation or pooling, which would
            be operators of its own in the file, goes into the layers that read it, where all can take it exactly.
        keep_zeros: Whether weights that are zero, as pruning leaves them, stay zero. A kernel of zeros alone trains.
        momentum: The weight of the past in the moving averages of the ranges.

    Returns:
        A functional model, compiled like the model, with a new optimizer; of the same class if that is a functional
        one, so that its `train_step` is kept. A warning names what of a class cannot be kept.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built or cannot be read layer by layer, is quantize-aware already, has weights
            that are not finite, or an argument is out of range.

    Example:

    >>> import tfprune
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])
    >>> aware = tfprune.quantize_aware(model)
    >>> aware.compile("sgd", "mse")
    >>> history = aware.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    >>> [type(layer).__name__ for layer in tfprune.strip(aware).layers]
    ['InputLayer', 'Dense', 'Activation', 'Dense']
    """
    check_traceable(model)
    check_choice("batch_normalization", batch_normalization, get_args(Normalization))
    if is_quantize_aware(model):
        raise ValueError(f"The model {model.name!r} is quantize-aware already: fit it, or strip it first.")
    check_finite_weights(model)
    flat = fold_normalizations(flattened(model, exclude), rounds=True, reuse=True)
    operators = Operators.of(flat)
    quantizer = _Quantizer(
        operators, place(flat, operators), batch_normalization, keep_zeros, momentum, names_of_outputs(model)
    )
    return quantizer.rewrite(flat)


def is_quantize_aware(model: keras.Model) -> bool:
    """Return whether a model came from `quantize_aware`, and still has its layers.

    Args:
        model: A Keras model.

    Returns:
        Whether a layer of it rounds weights or what passes.

    Example:

    >>> is_quantize_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    False
    """
    return any(isinstance(layer, (QuantizeWeights, QuantizeActivation)) for layer in model.layers)


def input_ranges(model: keras.Model) -> list[Range | None]:
    """Return the range that each input of a quantize-aware model has been seen to have, `None` where no data was seen.

    Args:
        model: A model from `quantize_aware`.

    Example:

    >>> aware = quantize_aware(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
    >>> _ = aware(np.array([[-1.0, 3.0]]), training=True)
    >>> input_ranges(aware)
    [(-1.0, 3.0)]
    """
    ranges = {
        id(node.inputs[0]): node.operation.range
        for node in walk(model)
        if isinstance(node.operation, QuantizeActivation)
    }
    return [ranges.get(id(tensor)) for tensor in model.inputs]


def names_of_outputs(model: keras.Model) -> list[str]:
    """Return the names by which Keras finds losses, metrics and labels of a model's outputs, for a copy to keep.

    Args:
        model: A built Keras model.

    Returns:
        One for each output; none at all where two are the same, or one is that of an input that is passed on.

    Example:

    >>> inputs = keras.Input((3,))
    >>> names_of_outputs(keras.Model(inputs, keras.layers.Dense(2, name="classes")(inputs)))
    ['classes']
    """
    view = functional(model)
    passed_on = {id(tensor) for tensor in view.inputs} & {id(tensor) for tensor in view.outputs}
    return list(view.output_names) if len(set(view.output_names)) == len(view.outputs) and not passed_on else []


class _Quantizer(Rewriter):
    """Puts the layers that round into a flat model."""

    flat = True

    def __init__(
        self,
        operators: Operators,
        placement: Placement,
        mode: Normalization,
        keep_zeros: bool,
        momentum: float,
        output_names: Sequence[str],
    ) -> None:
        super().__init__(output_names=output_names)
        self.placement, self.keep_zeros, self.momentum = placement, keep_zeros, momentum
        self.rules: dict[int, Rule] = {node.key: rule for node, rule in operators.calls()}
        self.sizes = Counter(site.group for site in placement.values())
        self.steps: dict[int, keras.KerasTensor] = {}  # between the levels of a tensor, by its id
        self.units: dict[int, keras.KerasTensor] = {}  # of which the sums in a tensor are whole numbers, by its id
        self.folded: dict[int, Node] = {}
        self.joined: dict[int, Node] = {}
        self.frozen: set[int] = set()
        for node in operators.nodes:
            normalization = operators.normalized.get(node.key)
            if normalization is None:
                continue
            per_channel = all(self.rules[node.key].channel_axes.values())
            once = operators.times[id(node.operation)] == operators.times[id(normalization.operation)] == 1
            folds = mode == "fold" and once and not self.rules[node.key].is_computed
            if not per_channel or folds:
                self.folded[node.key] = normalization
                continue
            if once:  # what two layers hold would be two layers in a file
                self.joined[node.key] = normalization
            if mode != "train":
                self.frozen.add(normalization.key)
        self.gone = {node.key for node in (*self.folded.values(), *self.joined.values())}
        self.apart = {node.key for node in operators.normalized.values()} - self.gone

    def enter(self, old: keras.KerasTensor, new: keras.KerasTensor) -> keras.KerasTensor:
        return self._rounded(new, self.placement.get(id(old)), name_in_file(new.name))  # any text can name an input

    def emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = self._rounded_on_the_way(node, args, kwargs)
        tensors = [value for value in keras.tree.flatten((args, kwargs)) if isinstance(value, keras.KerasTensor)]
        if node.key in self.gone:
            outputs = tensors
        else:
            layer = self._layer(node)
            operator = isinstance(layer, QuantizeWeights)
            outputs = keras.tree.flatten(self._operated(layer, tensors[0]) if operator else layer(*args, **kwargs))
        kind = self.rules[node.key].kind
        if kind in (Kind.NOTHING, Kind.MOVE):
            steps = [self.steps[id(tensor)] for tensor in tensors if id(tensor) in self.steps]
            self.steps.update((id(output), steps[0]) for output in outputs if steps)
        if kind in (Kind.NOTHING, Kind.RECTIFIER) and tensors and id(tensors[0]) in self.units:
            self.units[id(outputs[0])] = self.units[id(tensors[0])]
        sites = [self.placement.get(id(tensor)) for tensor in node.outputs]
        name, class_name = node.operation.name, type(node.operation).__name__
        options: dict[str, Any] = {}
        if "AveragePool" in class_name and "Global" not in class_name:
            options["pooled"] = True
        if self.rules[node.key].bounds_step and id(tensors[0]) in self.steps:
            options["least"] = self.steps[id(tensors[0])]
        return [
            self._rounded(output, site, name, options, self.ends.get(id(old)))
            for output, site, old in zip(outputs, sites, node.outputs, strict=True)
        ]

    def _rounded_on_the_way(self, node: Node, args: Any, kwargs: Any) -> Any:
        """Arguments of a call, of which some are rounded for it alone."""
        numbers = iter(range(len(node.inputs)))

        def part(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            return self._rounded(value, self.placement.get((node.key, next(numbers))), node.operation.name)

        return keras.tree.map_structure(part, (args, kwargs))

    def _operated(self, layer: QuantizeWeights, tensor: keras.KerasTensor) -> Any:
        """The output of an operator, which computes in whole numbers if it knows the step of its input."""
        step = self.steps.get(id(tensor))
        output, unit = layer(tensor) if step is None else layer(tensor, step=step)
        self.units[id(output)] = unit
        return output

    def _layer(self, node: Node) -> Any:
        rule, layer = self.rules[node.key], node.operation
        if rule.kind not in (Kind.KERNEL, Kind.AFFINE) or node.key in self.apart:
            end = self.ends.get(id(node.outputs[0])) if id(node.outputs[0]) not in self.placement else None
            return self._copy(node, end)
        return self.copies.once(("weights", *self._key(node)), lambda: self._wrapped(node, layer, rule))

    def _key(self, node: Node) -> tuple[int, int]:
        normalization = self.folded.get(node.key)
        return id(node.operation), 0 if normalization is None else normalization.key

    def _copy(self, node: Node, name: str | None = None) -> Any:
        layer = node.operation
        if isinstance(layer, KeepFloat):  # a config would ask for registered classes
            options = {"name": name or layer.name, "dtype": layer.dtype_policy}
            inner = layer.layer
            return self.copies.once(
                ("float", id(layer)), lambda: KeepFloat(self.copies.of(inner, name=inner.name), **options)
            )
        changes: dict[str, Any] = {"trainable": False} if node.key in self.frozen else {}
        changes |= {} if name is None else {"name": name}
        return self.copies.of(layer, **changes)

    def _inner(self, node: Node) -> keras.layers.Layer:
        """A copy that lies in a wrapper, and keeps its name though a layer beside the wrapper may have it."""
        return self._copy(node, node.operation.name)

    def _wrapped(self, node: Node, layer: Any, rule: Rule) -> keras.layers.Layer:
        if node.key in self.folded:
            normalization = self.folded[node.key].operation
            weights = folded_weights(layer, normalization)
            copy = self.copies.new(layer, weights, use_bias=True, name=layer.name)
        else:
            copy = self._inner(node)
        maker = None
        if isinstance(copy, ComputedKernels):
            copy, maker, layer = copy.layer, copy.makers[0], layer.layer
        joined = self.joined.get(node.key)
        zeros = [np.mean(keras.ops.convert_to_numpy(getattr(layer, name)) == 0) for name in rule.channel_axes]
        return QuantizeWeights(
            copy,
            rule.channel_axes,
            keep_zeros=self.keep_zeros and any(0 < share < 1 for share in zeros),
            normalization=None if joined is None else self._inner(joined),
            maker=maker,
            one_scale=rule.one_scale,
            name=self.copies.unused(f"quantize_{copy.name}"),
        )

    def _rounded(
        self,
        tensor: keras.KerasTensor,
        site: Site | None,
        name: str,
        options: Mapping[str, Any] = MappingProxyType({}),
        end: str | None = None,
    ) -> keras.KerasTensor:
        if site is None:
            return tensor
        layer = self.copies.once(
            ("range", site.group),
            lambda: QuantizeActivation(
                self.sizes[site.group],
                momentum=self.momentum,
                fixed=site.range,
                rounds=site.rounds,
                name=end if end and self.sizes[site.group] == 1 else self.copies.unused(f"{name}_range"),
                dtype=tensor.dtype,
            ),
        )
        options = {**options, **({"site": site.number} if layer.sites > 1 else {})}
        options |= {"unit": self.units[id(tensor)]} if id(tensor) in self.units else {}
        rounded, step = layer(tensor, **options)
        if site.rounds:
            self.steps[id(rounded)] = step
        return rounded
