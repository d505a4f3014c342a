"""The names and the order of a file's outputs."""

import re

import keras

from tfprune.graph import functional, output_structure
from tfprune.quantization import is_quantize_aware, output_layers
from tfprune.tflite.unpacking import TFLiteFile, pack


def output_names(model: keras.Model) -> list[str]:
    """Return what the outputs of a model are called in its file, in the order of the flat Keras outputs.

    A key of a dict is the name, and those of nested dicts and positions in lists are joined by underscores. Without
    keys it is the layer's name if the user gave one. Names that Keras made up (`dense_7`) differ from one run to the
    next, and stay out: those outputs are `output_0`, `output_1`, ..., as are keys that are the same when joined.

    Args:
        model: A Sequential or functional model.

    Returns:
        A name for each output, all different.

    Example:

    >>> inputs = keras.Input((3,))
    >>> output_names(keras.Model(inputs, {"box": keras.layers.Dense(4)(inputs), "a-b": [inputs, inputs]}))
    ['a-b_0', 'a-b_1', 'box']
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(output_structure(model))]
    if any(isinstance(part, str) for path in paths for part in path):
        names = ["_".join(map(str, path if isinstance(path[0], str) else ("output", *path))) for path in paths]
    else:
        names = _of_layers(model)
    return names if len(set(names)) == len(paths) else _numbered(len(paths))


def name_outputs(file: TFLiteFile, model: keras.Model) -> TFLiteFile:
    """Return a file whose outputs have the Keras order and names.

    The converter calls the outputs of a list `output_0`, `output_1`, ... and sorts them as text, so that `output_10`
    comes before `output_2`; those of a dict would have its keys, and an order of the converter's own in the graph.

    Args:
        file: A file that was just converted from a function that returns the flat outputs of `model`.
        model: The model.

    Returns:
        The file with such outputs; the same file if it has them.
    """
    names = output_names(model)
    if len(names) == 1 and names == _numbered(1):
        return file
    changed = file.editable()
    (signature,) = changed.signatureDefs
    outputs = {each.name.decode(): each for each in signature.outputs}
    ordered = [outputs[name] for name in _numbered(len(names))]
    for output, name in zip(ordered, names, strict=True):
        output.name = name.encode()
    signature.outputs = ordered
    changed.subgraphs[signature.subgraphIndex].outputs = [output.tensorIndex for output in ordered]
    return TFLiteFile(pack(changed))


def _numbered(count: int) -> list[str]:
    return [f"output_{number}" for number in range(count)]


def _of_layers(model: keras.Model) -> list[str]:
    names = functional(model).output_names
    if is_quantize_aware(model):
        makers = dict(zip(names, output_layers(model), strict=True))
    else:
        makers = {layer.name: layer for layer in model.layers}
    held = [re.sub(r"[^A-Za-z0-9_]", "_", name) for name in names]
    own = all(name in makers and name[0].isalpha() and not _is_automatic(name, makers[name]) for name in names)
    # the runtime sorts names that all end in a number by that number, so that would have to be the order already
    numbered = any(name.rpartition("_")[2].isdigit() for name in held)
    return held if own and not numbered else _numbered(len(model.outputs))


def _is_automatic(name: str, maker: keras.Layer) -> bool:
    """Whether Keras could have called a layer so, or a model that ends in it."""
    words = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(maker).__name__)).lower()
    return re.fullmatch(rf"({re.escape(words)}|functional|sequential)(_\d+)?", name) is not None
