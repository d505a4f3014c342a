"""Which operators of a file do the work of which layers of the model."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.graph import functional
from tfprune.graph.chains import chains
from tfprune.tflite.unpacking import TFLiteFile, type_name


class NotStorableError(ValueError):
    """A layer cannot be stored as was asked."""


@dataclass(frozen=True)
class LayerOperator:
    """An operator of a file.

    Attributes:
        output: The name of the tensor that it makes.
        layers: The layers that it does the work of.
        kernel: The name of the constant of two or more axes that it reads; empty if there is none.
        dtype: What that is stored in.
    """

    output: str
    layers: tuple[str, ...]
    kernel: str = ""
    dtype: str = ""


def named_layers(tensor: str, known: Collection[str]) -> tuple[str, ...]:
    """Return the layers in the name that the converter gives a tensor.

    It joins the names of what it fuses, and exporting numbers layers: "net_1/relu_1/Relu;net_1/conv_1/convolution".

    Args:
        tensor: The name.
        known: The names of the model's layers.

    Example:

    >>> named_layers("net_1/relu_1/Relu;net_1/conv_1/convolution", {"relu", "conv"})
    ('relu', 'conv')
    """
    parts = [part for part in re.split("[;/]", tensor) if part]
    names = [next((each for each in (re.sub(r"_\d+$", "", part), part) if each in known), "") for part in parts]
    return tuple(dict.fromkeys(filter(None, names)))


def is_unnamed(tensor: str) -> bool:
    """Return whether the converter dropped the name of a tensor, as it does of outputs."""
    return tensor.startswith("StatefulPartitionedCall")


def layer_operators(file: TFLiteFile, model: keras.Model) -> list[LayerOperator]:
    """Return the operators of a float file in their order, with the layers that they belong to.

    Args:
        file: The file; one with measured ranges too.
        model: The model that it was made of.
    """
    known = {chain[-1].name for chain in chains(model)}
    ends = tuple(functional(model).output_names) if len(model.outputs) == 1 else ()
    (graph, *_) = file.model.subgraphs
    before: dict[int, tuple[str, ...]] = {}
    found = []
    for operator in graph.operators or []:
        constants = [
            index for index in operator.inputs if index >= 0 and _is_constant(file.model, graph.tensors[index])
        ]
        names = [_name(graph.tensors[index]) for index in [*constants, *operator.outputs]]
        layers = tuple(dict.fromkeys(layer for name in names for layer in named_layers(name, known)))
        if not layers and any(map(is_unnamed, names)):
            layers = ends or tuple(layer for index in operator.inputs for layer in before.get(int(index), ()))
        before |= dict.fromkeys(map(int, operator.outputs), layers)
        shaped = [graph.tensors[index] for index in constants if graph.tensors[index].shape is not None]
        kernels = [tensor for tensor in shaped if len(tensor.shape) > 1]
        kernel = (_name(kernels[0]), type_name(kernels[0])) if kernels else ("", "")
        found += [LayerOperator(_name(graph.tensors[index]), layers, *kernel) for index in operator.outputs]
    return found


def operator_settings(
    operators: list[LayerOperator], model: keras.Model, precisions: LayerPrecisions
) -> dict[str, str | None]:
    """Return what each operator that is not stored as the mode says is stored as, by the tensor that it makes.

    Args:
        operators: The operators of the float file.
        model: The model.
        precisions: What was asked for.

    Returns:
        Modes, or None for what stays in float: an operator that any layer asks that for.

    Raises:
        NotStorableError: If a layer with weights that was named has no operator in the file.
    """
    settings = precisions.settings(model)
    here = {layer for operator in operators for layer in operator.layers}
    named = [each for each in (precisions.exclude, precisions.overrides) if each is not None and not callable(each)]
    missing = [layer.name for each in named for layer in each if layer.weights and not _names(layer) & here]
    if missing:
        raise NotStorableError(
            f"The layers {missing} have no operator of their own in the file: the converter made them a part of "
            "others, as BatchNormalization of the convolution before it. Name those layers instead."
        )
    found = {}
    for operator in operators:
        asked = [settings[layer] for layer in operator.layers if layer in settings]
        if asked:
            # The innermost layer is the last in the name of a kernel.
            inside = [settings[layer] for layer in named_layers(operator.kernel, settings)]
            found[operator.output] = None if None in asked else (inside or asked)[-1]
    return found


def _names(layer: keras.layers.Layer) -> set[str]:
    return {layer.name, *(chain[-1].name for chain in chains(layer))}


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _name(tensor: Any) -> str:
    return str(tensor.name.decode(errors="replace"))
