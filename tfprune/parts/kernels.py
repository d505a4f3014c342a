"""The kernels of a model whose weights can be pruned one by one.

Unlike `tfprune.graph`, which follows channels and therefore needs a rule for the exact class of a layer, this only
asks which variables are kernels: subclasses count, and the calls of the model need not be readable.
"""

from dataclasses import dataclass

import keras

from tfprune.graph.chains import Chain, chains, teacher_of
from tfprune.graph.exclude import Exclude, resolve_exclude
from tfprune.graph.kinds import find_kind
from tfprune.graph.walk import check_built

layers = keras.layers


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel whose weights can be pruned one by one.

    Attributes:
        path: The path of the variable, the key of its mask.
        variable: The variable.
        layer: The layer that owns it as the user knows it: the `MultiHeadAttention` or `LSTM`, not what is inside.
        holder: The layer that holds the variable: the one inside, in such a case.
        name: A short name, unique in the model: `"conv1"`, or `"lstm/recurrent_kernel"` where a layer has several;
            `"inner/conv1"` inside a nested model.
        input_axis: The axis along which inputs are summed, negative. Of several, the last one; where nothing is
            summed, the channels of a depthwise kernel, or the last axis (`Embedding`, an element-wise `EinsumDense`).
        output_axes: The axes along which the channels lie that it makes, negative.
        depthwise: Whether it is a depthwise kernel, which has few weights for what they do.
    """

    path: str
    variable: keras.Variable
    layer: keras.layers.Layer
    holder: keras.layers.Layer
    name: str
    input_axis: int
    output_axes: tuple[int, ...]
    depthwise: bool


def kernels(model: keras.Model, exclude: Exclude = None) -> tuple[Kernel, ...]:
    """Return the kernels of a model whose weights can be pruned one by one.

    Those of convolutions, `Dense`, `EinsumDense`, `Embedding`, attention and recurrent layers, of subclasses of them,
    and of your own layers that `tfprune.graph.register_kind` knows; also inside wrappers, nested models and custom
    layers. A shared layer counts once. Kernels that are not trained (`trainable=False`) are left out, since the weights
    around those that go could not make up for them, and so is the `teacher` of a model that has a `student` too.

    Args:
        model: A built Keras model.
        exclude: Layers to leave alone: a list of layer objects, or a function from a layer to True for those to leave
            alone; a nested model, wrapper or custom layer stands for all layers inside it.

    Returns:
        The kernels in the order of `model.layers`; none if the model has none.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `exclude` is neither a list of layers nor a function.
        ValueError: If the model is not built, `exclude` names a foreign layer, or a layer that is neither frozen nor
            excluded is quantized or has LoRA enabled.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, name="conv"), keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(10, name="classes")])
    >>> [(kernel.name, kernel.input_axis, kernel.depthwise) for kernel in kernels(model)]
    [('conv', -2, False), ('classes', -2, False)]
    >>> [kernel.name for kernel in kernels(model, exclude=[model.layers[-1]])]
    ['conv']
    """
    check_built(model)
    excluded = resolve_exclude(model, exclude)
    trained = {id(variable) for variable in model.trainable_variables}
    found: dict[str, Kernel] = {}
    teacher = teacher_of(model)
    for chain in chains(model):
        if chain[0] is teacher:
            continue
        holder, (owner, names) = chain[-1], _owner(chain)
        axes = find_kind(holder).kernels
        if not axes or excluded(holder) or not holder.trainable:
            continue
        _check_plain(holder, owner)
        held = [(kernel, variable) for kernel in axes if (variable := kernel.of(holder)) is not None]
        for kernel, variable in held:
            if id(variable) in trained:
                trained.remove(id(variable))  # a shared layer, or a tied variable, counts once
                last = [kernel.attribute.rpartition(".")[2]] if len(held) > 1 else []
                name = _unused("/".join([*names, *last]), found)
                found[name] = Kernel(
                    path=variable.path,
                    variable=variable,
                    layer=owner,
                    holder=holder,
                    name=name,
                    input_axis=kernel.input_axis,
                    output_axes=kernel.output_axes,
                    depthwise=kernel.depthwise,
                )
    return tuple(found.values())


def _owner(chain: Chain) -> tuple[keras.layers.Layer, list[str]]:
    """Return the layer that the user knows, and the names that lead to the end of the chain."""
    names = [layer.name for layer in chain]
    for depth, layer in enumerate(chain):
        hidden = find_kind(layer).hides
        if hidden is not None:
            return layer, names[: depth + 1] + names[depth + 1 + hidden :]
    return chain[-1], names


def _check_plain(holder: keras.layers.Layer, owner: keras.layers.Layer) -> None:
    mode = getattr(holder, "quantization_mode", None)
    state, first = (f"is quantized to {mode}", "quantizing") if mode else ("has LoRA enabled", "enabling LoRA")
    if mode or getattr(holder, "lora_enabled", False):
        raise ValueError(
            f"The layer {owner.name!r} {state}, so its weights cannot be pruned. "
            f"Prune before {first}, or leave the layer out with exclude."
        )


def _unused(name: str, taken: dict[str, Kernel]) -> str:
    """Return `name`, or with a number where a model of its own call gave two layers the same name."""
    candidate, count = name, 1
    while candidate in taken:
        candidate, count = f"{name}_{count}", count + 1
    return candidate
