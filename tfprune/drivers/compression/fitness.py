"""Whether a model and data fit each other and `compress`, before any work is spent on them."""

import math
import warnings

import keras
import tensorflow as tf

from tfprune.distillation import distill
from tfprune.drivers.data import Data, read
from tfprune.graph import check_traceable, functional
from tfprune.measure.entries import KerasEntry
from tfprune.measure.input_ranges import Range, misses
from tfprune.measure.scores import labels_of
from tfprune.shrinking.one_shot import prune_channels


def check_model(model: keras.Model) -> None:
    """Raise if a model cannot be compressed, before any work is spent on it.

    Args:
        model: What the user gave.

    Raises:
        TypeError: If it is not a Keras 3 model.
        ValueError: If it is not built, not compiled, has several outputs, or weights that are not finite.
    """
    check_traceable(model)
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled: loss, metrics and optimizer for fine-tuning are taken from "
            "there. Compile it as for its training: model.compile(optimizer, loss, metrics=[...])."
        )
    outputs = functional(model).outputs
    if len(outputs) != 1:
        raise ValueError(f"Expected a model with one output. Received: {model.name!r} with {len(outputs)}.")
    broken = [weight.path for weight in model.weights if not _is_finite(weight)]
    if broken:
        raise ValueError(f"These weights of {model.name!r} hold NaN or infinite values: {broken}. Train it anew.")


def check_fit(model: keras.Model, data: Data) -> None:
    """Raise if nothing of a model can be pruned, or data does not fit it or its loss; the model is not changed.

    Args:
        model: The model.
        data: The data.

    Raises:
        ValueError: If they do not fit.
    """
    copy = prune_channels(model, 0.0)
    for batch in (data.first(copy), next(iter(read(data.validation, copy, "validation")))):
        y = labels_of(batch)
        try:
            loss = float(copy.test_on_batch(batch.x, y, batch.sample_weight, return_dict=True)["loss"])
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"The data does not fit the loss or the metrics that {model.name!r} is compiled with; its labels have "
                f"the shape {y.shape} and dtype {y.dtype}. {error}"
            ) from error
        if not math.isfinite(loss):
            raise ValueError(f"The loss on the first samples is {loss}. Are the labels {y[:5].tolist()} right?")


def why_it_cannot_teach(model: keras.Model) -> str:
    """Return what keeps a model from teaching its own smaller copies; nothing if nothing does.

    Args:
        model: The dense model, compiled.
    """
    try:
        distill(prune_channels(model, 0.0), model)
    except ValueError as error:
        return str(error)
    return ""


def warn_of_ranges(model: keras.Model, data: Data) -> None:
    """Warn of inputs that are scaled otherwise than the model's first layers expect, or than in training.

    Args:
        model: The model.
        data: The data.
    """
    entry = KerasEntry(model.name, model)
    training = data.samples(model)
    measured = entry.samples(next(iter(read(data.validation, model, "validation"))).x)
    seen = {
        name: Range(float(values.min()), float(values.max()), "has training data within")
        for name, values in training.items()
        if values.dtype.kind in "fiu" and values.min() < values.max()
    }
    notes = misses(entry.ranges(), training, model.name) or misses(seen, measured, "validation")
    for note in notes:
        warnings.warn(note, stacklevel=3)


def _is_finite(weight: keras.Variable) -> bool:
    return not keras.backend.is_float_dtype(weight.dtype) or bool(keras.ops.all(keras.ops.isfinite(weight.value)))
