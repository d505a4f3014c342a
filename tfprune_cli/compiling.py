"""Models with loss and optimizer, from the file or for what they answer."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfprune.data import load_model
from tfprune.graph import functional
from tfprune.statistics.answers import Answer, answers_of
from tfprune_cli.errors import InputError
from tfprune_cli.notes import note

_LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
}


class _Output(NamedTuple):
    """What a model answers: how many numbers, and whether they are logits or probabilities, and of what."""

    units: int
    answer: Answer


def load_compiled(path: Path, loss: str | None, unsafe: bool) -> keras.Model:
    """Load a model with the loss and the optimizer that it was saved with, or without, if another loss is wanted.

    Args:
        path: A `.keras` or `.h5` file.
        loss: What is wanted instead; None for what is in the file.
        unsafe: Whether Python code that is stored in the file may run.

    Returns:
        The model; not compiled if nothing of it is in the file.

    Raises:
        InputError: If loss or optimizer are made of code that is not in the file.
        ValueError: If the model itself cannot be loaded.
    """
    if loss is not None:
        return load_model(path, unsafe=unsafe)
    try:
        return load_model(path, unsafe=unsafe, compiled=True)
    except ValueError:
        load_model(path, unsafe=unsafe)  # raises if it is the model that cannot be loaded
    raise InputError(
        f"'{path}' is compiled with a loss, metric or optimizer of its own, whose code is not in the file. Pass --loss "
        f"{next(iter(_LOSSES))}, or another that Keras has, to train with that and Adam."
    )


def compile_for(model: keras.Model, y: np.ndarray | None, loss: str | None) -> None:
    """Compile a model with Adam and the loss that fits its outputs and labels, unless it is compiled already.

    Args:
        model: The model.
        y: The labels; None where the model's own answers stand for them.
        loss: The loss; None for the one that fits.

    Raises:
        InputError: If nothing tells which loss fits.
    """
    if model.compiled:
        return
    output = _output(model)
    name = loss or _fitting(output, y)
    from_logits = not output.answer.is_probability
    model.compile("adam", _LOSSES[name](from_logits=from_logits))
    why = "" if loss else "the file names no loss: "
    of_what = "logits" if from_logits else "probabilities"
    note(f"note: {why}trained with Adam and {name} of {of_what} (--loss, --learning-rate).")


def metric_for(model: keras.Model) -> keras.metrics.Metric | None:
    """Return what measures a compiled model: the accuracy of yes or no, or None for that of classes."""
    output = _output(model)
    if output.units != 1 or output.answer.kind != "sigmoid":
        return None
    return keras.metrics.BinaryAccuracy(threshold=0.5 if output.answer.is_probability else 0.0)


def _output(model: keras.Model) -> _Output:
    """Read it where the output is made, in a function that is traced and not run."""
    found: list[Answer] = []
    graph = functional(model)
    trace = tf.function(lambda *inputs: found.extend(answers_of(model, graph(list(inputs)))), autograph=False)
    trace.get_concrete_function(*(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in graph.inputs))
    return _Output(graph.outputs[0].shape[-1], found[0])


def _fitting(output: _Output, y: np.ndarray | None) -> str:
    if output.units == 1 and (output.answer.kind == "sigmoid" if y is None else np.isin(y, (0, 1)).all()):
        return "binary_crossentropy"
    if output.units > 1 and y is None and output.answer.kind == "softmax":
        return "sparse_categorical_crossentropy"
    if output.units > 1 and y is not None:
        if y.ndim == 2 and y.shape[1] == output.units:
            return "categorical_crossentropy"
        if y.size == len(y) and (y == np.floor(y)).all():
            return "sparse_categorical_crossentropy"
    labels = "no labels" if y is None else f"labels of shape {y.shape} and type {y.dtype}"
    raise InputError(
        f"The model is not compiled, and nothing tells how it is trained: {output.units} outputs that come out of "
        f"{output.answer.kind}, and {labels}. Pass --loss, such as --loss {next(iter(_LOSSES))}; a model that "
        "is trained for other than classes is for tfprune.compress in Python."
    )
