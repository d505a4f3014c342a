"""Calibration data in any form that Keras takes, as plain arrays that fit the model's inputs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.exporting.inputs import Samples, input_specs

_TYPICAL = 0.99


def gather_samples(calibration: Any, model: keras.Model, max_samples: int) -> Samples:
    """Return calibration data as one array per input, checked against the model.

    Args:
        calibration: An array of shape `(samples, ...)`; a dict of them by input name; a list of them for several
            inputs; a tuple `(x, y)`; or an iterable (`tf.data.Dataset`, `keras.utils.PyDataset`, generator, list)
            of samples or batches of any of these forms. Labels are left out.
        model: The model, with known inputs.
        max_samples: Take at most this many: evenly spread over arrays, which are often sorted by class; the
            first ones of an iterable.

    Returns:
        Arrays of shape `(samples, ...)` by input name, in the dtype of the inputs.

    Raises:
        ValueError: If there are no samples, or their names, shapes, dtypes or values do not fit.
        TypeError: If `calibration` is none of the forms above.
    """
    if max_samples < 1:
        raise ValueError(f"max_samples must be 1 or more. Received: {max_samples}.")
    specs = input_specs(model)
    whole = calibration[0] if isinstance(calibration, tuple) and calibration else calibration
    if isinstance(whole, Mapping) or hasattr(whole, "__array__") or _is_per_input(whole, specs):
        samples = spread(_by_name(whole, specs), max_samples)
    elif isinstance(whole, Iterable | keras.utils.PyDataset):
        samples = _first(whole, specs, max_samples)
    else:
        raise TypeError(
            "Expected calibration data as an array, a tuple (x, y), a dict by input name, a tf.data.Dataset or an "
            f"iterable of batches. Received: {type(calibration).__name__}."
        )
    return {name: _checked(name, samples[name], spec) for name, spec in specs.items()}


def check_ranges(samples: Samples, num_levels: int) -> None:
    """Raise if no sensible range of the inputs can be measured on calibration samples.

    Args:
        samples: The samples by input name.
        num_levels: How many values a quantized input can have: 256 for int8.

    Raises:
        ValueError: If there is one sample, all are alike, or an outlier leaves almost all values to a single step.
    """
    if _count(samples) < 2:
        raise ValueError(
            "Ranges cannot be measured on one calibration sample. Give some hundred that are typical: x_train[:500]."
        )
    floats = {name: array for name, array in samples.items() if array.dtype.kind not in "iub"}
    if floats and all((array == array.flat[0]).all() for array in floats.values()):
        raise ValueError(
            f"The calibration data is {next(iter(floats.values())).flat[0]:g} everywhere: no range can be measured. "
            "Give real inputs, scaled as in training."
        )
    for name, array in floats.items():
        step = float(max(array.max(), 0) - min(array.min(), 0)) / (num_levels - 1)
        sizes = np.abs(array[array != 0].astype(np.float64))
        if sizes.size and np.quantile(sizes, _TYPICAL) < step / 2:
            raise ValueError(
                f"The calibration data for input {name!r} has outliers up to {sizes.max():.3g}, beside which "
                f"{_TYPICAL:.0%} of its values (up to {np.quantile(sizes, _TYPICAL):.3g}) would be rounded to zero. "
                "Remove or clip the outliers, in training too."
            )


def _is_per_input(value: Any, specs: Mapping[str, tf.TensorSpec]) -> bool:
    several = isinstance(value, list | tuple) and len(value) == len(specs) > 1
    return several and all(hasattr(array, "__array__") for array in value)


def _by_name(value: Any, specs: Mapping[str, tf.TensorSpec]) -> Samples:
    names = list(specs)
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise ValueError(f"Expected calibration data for the inputs {names}. Received: {list(value)}.")
        return {name: np.asarray(value[name]) for name in names}
    if len(names) == 1 and not isinstance(value, tuple):
        return {names[0]: np.asarray(value)}
    if isinstance(value, list | tuple) and len(value) == len(names):
        return {name: np.asarray(array) for name, array in zip(names, value, strict=True)}
    raise ValueError(
        f"The model has the inputs {names}. Give calibration data for each: a dict by name, or a list in this order."
    )


def spread(samples: Samples, max_samples: int) -> Samples:
    """Return at most `max_samples` of the samples, evenly spaced from the first to the last."""
    num_samples = _count(samples)
    if num_samples <= max_samples:
        return samples
    rows = np.linspace(0, num_samples - 1, max_samples).round().astype(int)
    return {name: array[rows] for name, array in samples.items()}


def _count(samples: Samples) -> int:
    counts = {name: len(array) if array.ndim else 0 for name, array in samples.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The inputs differ in their number of calibration samples: {counts}.")
    return next(iter(counts.values()))


def _first(batches: Any, specs: Mapping[str, tf.TensorSpec], max_samples: int) -> Samples:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    num_samples = 0
    for batch in _elements(batches):
        x = batch[0] if isinstance(batch, tuple) and batch else batch
        batched = {name: _batch(array, specs[name]) for name, array in _by_name(x, specs).items()}
        for name, array in batched.items():
            _check_shape(name, array, specs[name])
            parts[name].append(array)
        num_samples += _count(batched)
        if num_samples >= max_samples:
            break
    if not num_samples:
        raise ValueError("The calibration data has no samples. A generator can be read only once: give a fresh one.")
    return {name: np.concatenate(arrays)[:max_samples] for name, arrays in parts.items()}


def _elements(batches: Any) -> Iterator[Any]:
    if isinstance(batches, keras.utils.PyDataset):
        return (batches[index] for index in range(batches.num_batches))
    return iter(batches)


def _batch(array: np.ndarray, spec: tf.TensorSpec) -> np.ndarray:
    return array[None] if array.ndim == len(spec.shape) - 1 else array


def _check_shape(name: str, array: np.ndarray, spec: tf.TensorSpec) -> None:
    if array.ndim != len(spec.shape) or array.shape[1:] != tuple(spec.shape[1:]):
        raise ValueError(
            f"Expected calibration data of shape (samples, {', '.join(map(str, spec.shape[1:]))}) for input {name!r}. "
            f"Received: {array.shape}."
        )


def _checked(name: str, array: np.ndarray, spec: tf.TensorSpec) -> np.ndarray:
    _check_shape(name, array, spec)
    if not len(array):
        raise ValueError(f"The calibration data for input {name!r} has no samples. Give some tens to hundreds.")
    kinds = "fiu" if spec.dtype.is_floating else "iu" if spec.dtype.is_integer else "b"
    # dtypes that NumPy does not know by itself, such as bfloat16, are of kind "V"
    if array.dtype.kind not in kinds and array.dtype != spec.dtype.as_numpy_dtype:
        raise ValueError(
            f"Input {name!r} is {spec.dtype.name}; the calibration data is {array.dtype}. Convert it first."
        )
    converted = array.astype(spec.dtype.as_numpy_dtype)
    if spec.dtype.is_floating and not np.isfinite(converted.astype(np.float64)).all():
        raise ValueError(
            f"The calibration data for input {name!r} has NaN or infinite values, from which no range can be measured. "
            "Remove them."
        )
    return converted
