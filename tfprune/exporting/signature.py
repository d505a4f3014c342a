"""The names and the order of a file's outputs."""

import re

import keras

from tfprune.quantization import is_quantize_aware, output_layers
from tfprune.tflite.unpacking import TFLiteFile, pack


def name_outputs(file: TFLiteFile, model: keras.Model) -> TFLiteFile:
    """Return a file whose outputs have the Keras order, and the names of the layers that the user named.

    The converter calls the outputs of a list `output_0`, `output_1`, ... and sorts them as text, so that `output_10`
    comes before `output_2`. Names that Keras made up (`dense_7`) differ from one run to the next, and stay out.

    Args:
        file: A file that was just converted from `model`.
        model: The model.

    Returns:
        The file with such outputs: the same one if it has them.
    """
    changed = file.editable()
    (signature,) = changed.signatureDefs
    outputs = {each.name.decode(): each for each in signature.outputs}
    if not all(re.fullmatch(r"output_\d+", name) for name in outputs):
        return file  # named by the keys of a dict, which Keras sorts too
    ordered = [outputs[f"output_{number}"] for number in range(len(outputs))]
    for output, name in zip(ordered, _names(model), strict=True):
        output.name = name.encode()
    signature.outputs = ordered
    changed.subgraphs[signature.subgraphIndex].outputs = [output.tensorIndex for output in ordered]
    return TFLiteFile(pack(changed))


def _names(model: keras.Model) -> list[str]:
    if is_quantize_aware(model):
        layers = {layer.name: layer for layer in output_layers(model)}
        names = list(layers)
    else:
        names = [model.layers[-1].name] if isinstance(model, keras.Sequential) else list(model.output_names)
        layers = {layer.name: layer for layer in model.layers}
    held = [re.sub(r"[^A-Za-z0-9_]", "_", name) for name in names]
    own = all(name in layers and name[0].isalpha() and not _is_automatic(layers[name]) for name in names)
    # the runtime sorts names that all end in a number by that number, so that would have to be the order already
    numbered = any(name.rpartition("_")[2].isdigit() for name in held)
    if own and not numbered and len(set(held)) == len(model.outputs):
        return held
    return [f"output_{number}" for number in range(len(model.outputs))]


def _is_automatic(layer: keras.Layer) -> bool:
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(layer).__name__)).lower()
    return re.fullmatch(rf"{re.escape(words)}(_\d+)?", layer.name) is not None
