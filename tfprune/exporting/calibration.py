"""Calibration data as plain arrays that fit the model's inputs, and ranges that make sense."""

import warnings
from typing import Any

import keras
import numpy as np

from tfprune.data import Reader, inputs_of
from tfprune.data.inputs import Samples
from tfprune.data.reading import evenly
from tfprune.exporting.channels import lost_channels

_TYPICAL = 0.99


def gather_samples(calibration: Any, model: keras.Model, max_samples: int, argument: str = "calibration") -> Samples:
    """Return calibration data as one array per input, checked against the model.

    Args:
        calibration: Any form that `tfprune.data.Reader` takes, or a function that returns one, as TensorFlow's
            converter wants it. Labels and sample weights are left out.
        model: The model, with known inputs.
        max_samples: Take at most this many: evenly spread over arrays, which are often sorted by class; the
            first ones of anything else.
        argument: What the user knows the data as, for messages.

    Returns:
        Arrays of shape `(samples, ...)` by input name, in the dtype of the inputs.

    Raises:
        ValueError: If there are no samples, or their names, shapes, dtypes or values do not fit.
        TypeError: If `calibration` is none of the forms.
    """
    data = (
        calibration() if callable(calibration) and not isinstance(calibration, keras.utils.PyDataset) else calibration
    )
    reader = Reader(data, inputs_of(model), argument=argument, max_samples=max_samples)
    batches = [reader.inputs.samples(batch.x) for batch in reader]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def check_ranges(samples: Samples, num_levels: int) -> None:
    """Raise if no sensible range of the inputs can be measured on calibration samples, and warn of what will be lost.

    Args:
        samples: The samples by input name.
        num_levels: How many values a quantized input can have: 256 for int8.

    Raises:
        ValueError: If there is one sample, all are alike, or an outlier leaves almost all values to a single step.

    Example:

    >>> samples = {"x": np.array([[1000.0, 1.0], [900.0, 2.0]]), "y": np.array([[0.5], [1.0]])}
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     check_ranges(samples, 256)
    >>> str(told[0].message)[:72]
    "The features of input 'x' differ much in range, and a file has one scale"
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
        if not sizes.size:
            warnings.warn(
                f"The calibration data for input {name!r} is 0 in every sample: no range is known, and the file will "
                "cut off whatever it gets there. Give samples in which it varies, or leave the input out of the model.",
                stacklevel=3,
            )
        lost = lost_channels(array, step)
        if lost:
            shown = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
            largest = int(np.abs(array.reshape(-1, array.shape[-1])).max(axis=0).argmax())
            warnings.warn(
                f"The features of input {name!r} differ much in range, and a file has one scale for all: feature "
                f"{largest} goes up to {sizes.max():.3g}, and all numbers of {len(lost)} others ({shown}) lie within "
                "two steps, and are lost. Scale the features to similar sizes before they enter the model, in training "
                "too, or make them an input of their own.",
                stacklevel=3,
            )


def spread(samples: Samples, max_samples: int) -> Samples:
    """Return at most `max_samples` of the samples, evenly spaced from the first to the last."""
    rows = evenly(_count(samples), max_samples)
    return {name: array[rows] for name, array in samples.items()}


def _count(samples: Samples) -> int:
    return len(next(iter(samples.values())))
