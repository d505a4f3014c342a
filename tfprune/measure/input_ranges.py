"""Whether inputs are scaled as a model expects them, as far as the model or its file tells."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from tfprune.data.inputs import Samples
from tfprune.graph import functional, nested, walk
from tfprune.quantization.aware_layers import QuantizeActivation
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import operator_name

_PASSED = ("Identity", "Dropout", "SpatialDropout", "GaussianNoise", "GaussianDropout", "Random", "ZeroPadding")
"""Layers, by the beginning of their names, behind which values are what they were before, at inference."""

_PIXELS = 0.1  # a Rescaling by less than that is made for pixels
_DEVIATIONS = 10.0  # of standardized values: none is further from the mean
_FEW, _MANY = 0.05, 0.05  # how much of the range inputs fill at least; how many of them may lie outside


class Range(NamedTuple):
    """What an input is expected to hold: the limits, which broadcast to samples, and how that is known."""

    low: np.ndarray | float
    high: np.ndarray | float
    known_by: str


def keras_ranges(model: keras.Model, names: list[str]) -> dict[str, Range]:
    """Return the ranges that the first layers of a model tell: rescaling, normalization, or what int8 was trained on.

    Args:
        model: A built Keras model.
        names: What its inputs are called.

    Returns:
        By name, those of the inputs of which something is known.
    """
    tensors = functional(model).inputs
    found = ((name, next(_ranges_behind(model, tensor), None)) for name, tensor in zip(names, tensors, strict=True))
    return {name: expected for name, expected in found if expected is not None}


def file_ranges(model: TFLiteModel) -> dict[str, Range]:
    """Return the ranges that a file stores its inputs in, or rounds them to first.

    Args:
        model: The file.

    Returns:
        By name, those of the inputs that are rounded.
    """
    graph, found = model.file.model.subgraphs[0], {}
    rounded = {
        int(operator.inputs[0]): graph.tensors[operator.outputs[0]].quantization
        for operator in graph.operators or []
        if operator_name(model.file.model, operator) == "QUANTIZE"
    }
    for details in model.inputs:
        limits, scale, zero_point = np.iinfo(np.int8), details.scale, details.zero_point
        if scale:
            limits = np.iinfo(details.dtype)
        elif details.index in rounded:
            scale, zero_point = (float(rounded[details.index].scale[0]), int(rounded[details.index].zeroPoint[0]))
        if scale:
            low, high = ((limit - zero_point) * scale for limit in (limits.min, limits.max))
            found[details.name] = Range(float(low), float(high), "stores")
    return found


def misses(expected: Mapping[str, Range], samples: Samples, owner: str) -> list[str]:
    """Return a sentence for each input that is scaled otherwise than expected.

    Args:
        expected: What is known of the inputs.
        samples: Some inputs by name.
        owner: What the model is called.

    Returns:
        The sentences; none where all fit, or nothing is known.
    """
    found = []
    for name, (low, high, known_by) in expected.items():
        values = np.asarray(samples[name], "float64")
        if not np.isfinite(values).all() or values.min() == values.max():
            continue
        places = (values - low) / (high - low)
        outside = float(((places < -0.1) | (places > 1.1)).mean())
        if outside > _MANY or _filled(places, np.shape(low)) < _FEW:
            found.append(
                f"The inputs of {owner!r} do not look as in its training: they go from {values.min():.3g} to "
                f"{values.max():.3g}, and {name!r} {known_by} {np.min(low):.3g} to {np.max(high):.3g}. Scale them as "
                "in training."
            )
    return found


def _filled(places: np.ndarray, limits: tuple[int, ...]) -> float:
    """How much of its range values fill, at the feature that has most; all of it where there is one value for each."""
    shape = (1,) * (places.ndim - len(limits)) + limits
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    several = any(places.shape[axis] > 1 for axis in axes)
    return float(np.ptp(places, axis=axes).max()) if several else 1.0


def _ranges_behind(model: keras.Model, tensor: keras.KerasTensor) -> Iterator[Range]:
    """Look at the layers that a tensor goes into, and further where it passes through unchanged."""
    for node in walk(model):
        if not any(each is tensor for each in node.inputs):
            continue
        inner = nested(node)
        if inner is not None:
            place = next(index for index, each in enumerate(node.inputs) if each is tensor)
            yield from _ranges_behind(inner, inner.inputs[place])
        elif type(node.operation).__name__.startswith(_PASSED):
            yield from _ranges_behind(model, node.outputs[0])
        else:
            yield from _range_of(node.operation)


def _range_of(layer: keras.Operation) -> Iterator[Range]:
    if isinstance(layer, keras.layers.Rescaling):
        scale, offset = (np.asarray(each, "float64") for each in (layer.scale, layer.offset))
        if (scale > 0).all() and (scale < _PIXELS).all():
            yield Range((-1 - offset) / scale, (1 - offset) / scale, "is rescaled as if it held values within")
    elif isinstance(layer, keras.layers.Normalization) and layer.mean is not None and not layer.invert:
        yield from _around(layer.mean, layer.variance)
    elif isinstance(layer, keras.layers.BatchNormalization) and layer.axis in (-1, layer.input_spec.ndim - 1):
        yield from _around(layer.moving_mean, layer.moving_variance)
    elif isinstance(layer, QuantizeActivation) and layer.range is not None:
        low, high = layer.range
        yield Range(float(low), float(high), "was trained for int8 on")


def _around(mean: Any, variance: Any) -> Iterator[Range]:
    middle, square = (keras.ops.convert_to_numpy(each).astype("float64") for each in (mean, variance))
    if middle.any() or (square != 1).any():  # else it has seen nothing yet
        far = _DEVIATIONS * np.sqrt(np.maximum(square, keras.config.epsilon()))
        yield Range(middle - far, middle + far, "is normalized as if it held values within")
