"""`quantize_aware`: a model that trains with the rounding that int8 will bring."""

from collections import Counter
from typing import Any, Literal, get_args

import keras
import numpy as np

from tfprune.checks import check_choice
from tfprune.graph import Node, check_traceable
from tfprune.graph.groups import Exclude, resolve_exclude
from tfprune.layers.quantization import QuantizeActivation, QuantizeWeights
from tfprune.quantize.flattening import flattened
from tfprune.quantize.folding import folded_weights
from tfprune.quantize.placement import Operators, Placement, Site, call_id, place
from tfprune.quantize.rewriting import Copies, rewrite
from tfprune.quantize.rules import Kind, Rule

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
        exclude: Layers to leave in float: a list of layer objects, or a function from a layer to bool.
        batch_normalization: What becomes of a BatchNormalization behind a layer with a kernel: `"train"` leaves it as
            it is, `"freeze"` fixes its statistics and weights, `"fold"` puts it into the weights before. Behind
            `Dense`, which has one scale only, it is always folded.
        keep_zeros: Whether weights that are zero, as pruning leaves them, stay zero. A kernel of zeros alone trains.
        momentum: The weight of the past in the moving averages of the ranges.

    Returns:
        A functional model, compiled like the model, with a new optimizer.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built or cannot be read layer by layer, is quantize-aware already, or an
            argument is out of range.

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
    flat = flattened(model, resolve_exclude(model, exclude))
    operators = Operators.of(flat)
    return _Quantizer(operators, place(flat, operators), batch_normalization, keep_zeros, momentum).apply(flat)


def is_quantize_aware(model: keras.Model) -> bool:
    """Return whether a model came from `quantize_aware`, and still has its layers.

    Example:

    >>> is_quantize_aware(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    False
    """
    return any(isinstance(layer, (QuantizeWeights, QuantizeActivation)) for layer in model.layers)


class _Quantizer:
    """Puts the layers that round into a flat model."""

    def __init__(
        self, operators: Operators, placement: Placement, mode: Normalization, keep_zeros: bool, momentum: float
    ) -> None:
        self.placement, self.keep_zeros, self.momentum = placement, keep_zeros, momentum
        self.rules: dict[int, Rule] = {call_id(node): rule for node, rule in operators.calls()}
        self.copies = Copies()
        self.sizes = Counter(site.group for site in placement.after.values())
        self.folded: dict[int, Node] = {}
        self.frozen: set[int] = set()
        for node in operators.nodes:
            normalization = operators.normalized.get(call_id(node))
            if normalization is None:
                continue
            per_channel = all(self.rules[call_id(node)].channel_axes.values())
            if not per_channel or (mode == "fold" and operators.times[id(node.operation)] == 1):
                self.folded[call_id(node)] = normalization
            elif mode != "train":
                self.frozen.add(call_id(normalization))
        self.gone = {call_id(node) for node in self.folded.values()}

    def apply(self, flat: keras.Model) -> keras.Model:
        """Return the model with them."""
        names = {id(layer.output): layer.name for layer in flat.layers if isinstance(layer, keras.layers.InputLayer)}
        after = self.placement.after
        aware = rewrite(flat, self._emit, lambda old, new: self._rounded(new, after.get(id(old)), names[id(old)]))
        self.copies.set_weights()
        return aware

    def _emit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = node.operation.name
        if call_id(node) in self.gone:
            outputs = [args[0]]
        else:
            outputs = keras.tree.flatten(self._layer(node)(*args, **kwargs))
        sites = [self.placement.after.get(id(tensor)) for tensor in node.outputs]
        return [self._rounded(output, site, name) for output, site in zip(outputs, sites, strict=True)]

    def _layer(self, node: Node) -> Any:
        rule, layer = self.rules[call_id(node)], node.operation
        if rule.kind is not Kind.KERNEL:
            return self.copies.of(layer, **({"trainable": False} if call_id(node) in self.frozen else {}))
        if call_id(node) in self.folded:
            weights = folded_weights(layer, self.folded[call_id(node)], rule.channel_axes["kernel"])
            copy = self.copies.new(layer, weights, use_bias=True)
        else:
            copy = self.copies.of(layer)
        return self.copies.once(("weights", id(copy)), lambda: self._wrapped(copy, layer, rule))

    def _wrapped(self, copy: keras.layers.Layer, layer: Any, rule: Rule) -> QuantizeWeights:
        zeros = [np.mean(keras.ops.convert_to_numpy(getattr(layer, name)) == 0) for name in rule.channel_axes]
        return QuantizeWeights(
            copy,
            rule.channel_axes,
            keep_zeros=self.keep_zeros and any(0 < share < 1 for share in zeros),
            name=self.copies.unused(f"quantize_{copy.name}"),
            dtype=copy.dtype_policy,
        )

    def _rounded(self, tensor: keras.KerasTensor, site: Site | None, name: str) -> keras.KerasTensor:
        if site is None:
            return tensor
        layer = self.copies.once(
            ("range", site.group),
            lambda: QuantizeActivation(
                self.sizes[site.group],
                momentum=self.momentum,
                fixed=site.range,
                name=self.copies.unused(f"{name}_range"),
                dtype=tensor.dtype,
            ),
        )
        return layer(tensor, **({"site": site.number} if layer.sites > 1 else {}))
