"""What keeps the converter from rounding a layer that stays in float, and leaves nothing in the file.

TensorFlow's converter turns a layer beside an int8 tensor into int8 as it sees fit. It has no integer form of a float64
tensor, so nothing passes one: the value goes to float64 and back, which changes no bit, and both casts are taken out of
the finished file.
"""

from typing import Any

import keras
from keras import ops

from tfprune.tflite.unpacking import TFLiteFile, operator_name, pack, type_name


class Barrier(keras.layers.Layer):
    """Casts a float32 tensor to float64 and back."""

    def call(self, inputs: Any) -> Any:
        """Return the same numbers."""
        return ops.cast(ops.cast(inputs, "float64"), inputs.dtype)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return what goes in."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


def without_barriers(file: TFLiteFile) -> TFLiteFile:
    """Return a file without casts to float64 and back, which do nothing.

    Args:
        file: What the converter wrote.

    Returns:
        The file without these operators and their tensors: the same one if it has none.

    Example:

    >>> import tempfile, tfprune
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> path = tempfile.mkdtemp() + "/model.tflite"
    >>> _ = tfprune.export(model, path)
    >>> file = TFLiteFile.read(path)
    >>> without_barriers(file) is file
    True
    """
    model = file.editable()
    removed = [_remove_casts(model, graph, number) for number, graph in enumerate(model.subgraphs)]
    if not any(removed):
        return file
    _drop_unused_codes(model)
    return TFLiteFile(pack(model))


def _remove_casts(model: Any, graph: Any, number: int) -> bool:
    """Take the casts out of a subgraph; whether there were any."""
    makers = {int(index): each for each in graph.operators or [] for index in each.outputs}
    sources: dict[int, int] = {}
    for operator in graph.operators or []:
        up = makers.get(int(operator.inputs[0])) if _is_cast(model, operator) else None
        if up is None or not _is_cast(model, up) or type_name(graph.tensors[operator.inputs[0]]) != "float64":
            continue
        source = int(up.inputs[0])
        if type_name(graph.tensors[source]) == type_name(graph.tensors[operator.outputs[0]]) == "float32":
            sources[int(operator.outputs[0])] = sources.get(source, source)
    if not sources:
        return False
    graph.operators = [each for each in graph.operators if int(each.outputs[0]) not in sources]
    _renumber(model, graph, number, sources)
    read = {int(index) for each in graph.operators for index in each.inputs} | {int(i) for i in graph.outputs}
    graph.operators = [
        each for each in graph.operators if not _is_cast(model, each) or read.issuperset(map(int, each.outputs))
    ]
    _drop_unused_tensors(model, graph, number)
    return True


def _drop_unused_tensors(model: Any, graph: Any, number: int) -> None:
    used = {int(index) for index in (*graph.inputs, *graph.outputs)}
    for operator in graph.operators:
        used.update(int(index) for part in _references(operator) for index in getattr(operator, part))
    kept = [index for index in range(len(graph.tensors)) if index in used]
    graph.tensors = [graph.tensors[index] for index in kept]
    _renumber(model, graph, number, {old: new for new, old in enumerate(kept)})


def _renumber(model: Any, graph: Any, number: int, numbers: dict[int, int]) -> None:
    """Let everything that names a tensor of a subgraph name another one."""
    for owner in (graph, *graph.operators):
        for part in ("inputs", "outputs") if owner is graph else _references(owner):
            setattr(owner, part, [numbers.get(int(index), int(index)) for index in getattr(owner, part)])
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == number:
            for tensor in (*signature.inputs, *signature.outputs):
                tensor.tensorIndex = numbers.get(int(tensor.tensorIndex), int(tensor.tensorIndex))


def _references(operator: Any) -> list[str]:
    return [part for part in ("inputs", "outputs", "intermediates") if getattr(operator, part) is not None]


def _drop_unused_codes(model: Any) -> None:
    used = sorted({operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators or []})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    places = {old: new for new, old in enumerate(used)}
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            operator.opcodeIndex = places[operator.opcodeIndex]


def _is_cast(model: Any, operator: Any) -> bool:
    return operator_name(model, operator) == "CAST"
