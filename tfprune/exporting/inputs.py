"""What goes into a model and comes out: checks, names, shapes, and the Keras model's own answers."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.data.inputs import Samples, input_structure, name_in_file
from tfprune.graph import check_built, functional
from tfprune.quantization import input_ranges, is_quantize_aware


def check_model(model: Any) -> keras.Model:
    """Return a model with known inputs: the user's, or a functional view of a subclassed one.

    Args:
        model: What the user gave.

    Returns:
        The model.

    Raises:
        TypeError: If it is not a Keras 3 model.
        ValueError: If it is not built, does not tell its inputs, or an input has an unknown size.
    """
    if getattr(check_built(model), "inputs", None) is None:
        model = functional(model)
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise ValueError(
                f"Input {tensor.name!r} has the shape {tensor.shape}; a .tflite file for phones needs every size but "
                "the batch to be known. Build the model with a fixed keras.Input(shape)."
            )
    return model


def input_specs(model: keras.Model) -> dict[str, tf.TensorSpec]:
    """Return the specification of each input with a batch of 1, by name, in the order of `model.inputs`.

    Characters that a `.tflite` signature cannot hold become underscores.
    """
    specs = {}
    for tensor in model.inputs:
        name = name_in_file(tensor.name)
        if name in specs:
            raise ValueError(f"Two inputs of model {model.name!r} are called {name!r} in a .tflite file. Rename one.")
        specs[name] = tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)
    return specs


def call(model: keras.Model, tensors: list[Any]) -> Any:
    """Return the model's outputs for the flat list of its inputs, in inference mode."""
    return model(keras.tree.pack_sequence_as(input_structure(model), tensors), training=False)


def keras_outputs(model: keras.Model, samples: Samples, batch_size: int = 32) -> list[np.ndarray]:
    """Return the model's outputs for all samples, flat, in the order in which the file's signature has them.

    The model is called, not `predict`ed: `predict` would compile a function into the user's model.
    """
    num_samples = len(next(iter(samples.values())))
    batches = []
    for start in range(0, num_samples, batch_size):
        tensors = [tf.constant(array[start : start + batch_size]) for array in samples.values()]
        batches.append([keras.ops.convert_to_numpy(out) for out in keras.tree.flatten(call(model, tensors))])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def random_samples(model: keras.Model, num_samples: int = 32) -> Samples:
    """Return seeded stand-ins for data: uniform in [0, 1) for float inputs, 0 and 1 for whole numbers.

    Whole numbers are mostly indices, of which 0 and 1 are always in range. A quantize-aware model knows the ranges of
    its inputs; all of them are used.
    """
    rng = np.random.default_rng(0)
    samples = {}
    known = input_ranges(model) if is_quantize_aware(model) else [None] * len(model.inputs)
    for (name, spec), limits in zip(input_specs(model).items(), known, strict=True):
        shape, dtype = (num_samples, *spec.shape[1:]), spec.dtype.as_numpy_dtype
        low, high = limits or (0.0, 1.0)
        values = low + (high - low) * rng.random(shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        samples[name] = values.astype(dtype)
    return samples
