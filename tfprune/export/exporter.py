"""`export`: convert, check, and only then write."""

import os
from typing import Any

import keras

from tfprune.export.calibration import gather_samples, spread
from tfprune.export.convert import to_tflite, uses_half_precision
from tfprune.export.inputs import check_model, random_samples
from tfprune.export.operators import OperatorCount, count_operators, zero_fraction
from tfprune.export.report import ExportReport
from tfprune.export.verify import HALF_PRECISION_TOLERANCE, STEPS, TOLERANCES, verify
from tfprune.files import check_writable, gzip_size, write_atomically

_IO_DTYPES = ("int8", "uint8", "float32")
_NUM_VERIFIED = 100  # enough to tell a broken file; the interpreter runs them one by one


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    calibration: Any = None,
    io_dtype: str | None = None,
    tolerance: float | None = None,
    max_samples: int = 500,
) -> ExportReport:
    """Write `model` as a `.tflite` file with a static batch of 1, after checking it against the model.

    The file is converted and compared with the Keras model in memory, and written only if their outputs agree:
    an older file at `path` stays until then. The model is not changed. A model in half precision
    (`mixed_float16`) is converted from a float32 copy, as devices have no half-precision kernels.

    Modes: None keeps float32; `"float16"` halves the file, and most devices still compute in float32;
    `"dynamic"` stores kernels as int8, with float inputs and outputs and no need for data; `"int8"` makes every
    operator integer, which is the fastest on phones and the only one on many microcontrollers and accelerators.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018.

    Args:
        model: A built functional or sequential Keras 3 model whose inputs have fixed shapes, batch aside.
        path: Where the file goes; ends in `.tflite`.
        quantize: None, `"float16"`, `"dynamic"` or `"int8"`.
        calibration: Samples of real inputs, some hundreds, scaled as in training: an array `(samples, ...)`, a
            tuple `(x, y)`, a dict by input name, a `tf.data.Dataset`, or an iterable of batches. Needed for int8,
            and the better check in every mode; without it the check uses random inputs.
        io_dtype: dtype of float inputs and outputs of an int8 file: `"int8"` (the default), `"uint8"` (asked for
            by MediaPipe Tasks) or `"float32"` (asked for by LiteRT.js). Other modes: `"float32"` only.
        tolerance: Largest RMS error relative to the standard deviation of the outputs. None for the mode's
            default: 2e-3 for float, 5e-3 for float16, 0.1 for dynamic, 0.25 for int8; at least 0.05 for a model in
            half precision.
        max_samples: Use at most this many calibration samples: evenly spread over arrays, the first ones of
            a dataset (shuffle it if it is sorted by class).

    Returns:
        What was written, and how close it is to the model.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or `calibration` has an unknown form.
        ValueError: If the model is not built, an argument does not fit the others, or the calibration data does
            not fit the model.
        OSError: If `path` cannot be written.
        RuntimeError: If the converter refuses the model.
        ExportMismatchError: If the file's outputs differ from the model's by more than `tolerance`.

    Example:

    >>> import keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> data = np.random.default_rng(0).normal(size=(50, 4))
    >>> report = export(model, tempfile.mkdtemp() + "/model.tflite", quantize="int8", calibration=data)
    >>> report.io_dtype, report.float_operators, report.verified_on
    ('int8', (), '50 calibration samples')
    """
    doors = _check_arguments(quantize, calibration, io_dtype, tolerance)
    model = check_model(model)
    target = check_writable(path, ".tflite")
    samples = None if calibration is None else gather_samples(calibration, model, max_samples)
    content = to_tflite(model, quantize, samples, doors)
    if tolerance is None:
        tolerance = max(TOLERANCES[quantize], HALF_PRECISION_TOLERANCE if uses_half_precision(model) else 0.0)
    checked = random_samples(model) if samples is None else spread(samples, _NUM_VERIFIED)
    errors = verify(content, model, checked, tolerance, STEPS[quantize])
    operators = count_operators(content)
    write_atomically(target, content)
    num_checked = len(next(iter(checked.values())))
    return ExportReport(
        path=str(target),
        quantize=quantize,
        io_dtype=doors,
        file_bytes=len(content),
        gzip_bytes=gzip_size(content),
        operators=operators,
        float_operators=_left_in_float(operators) if quantize == "int8" else (),
        zero_fraction=zero_fraction(content),
        verified_on=f"{num_checked} {'random inputs' if samples is None else 'calibration samples'}",
        tolerance=tolerance,
        outputs=errors,
    )


def _check_arguments(quantize: str | None, calibration: Any, io_dtype: str | None, tolerance: float | None) -> str:
    """Return the dtype at the file's doors, or raise."""
    if quantize not in TOLERANCES:
        raise ValueError(f"quantize must be one of {list(TOLERANCES)}. Received: {quantize!r}.")
    if io_dtype is not None and io_dtype not in _IO_DTYPES:
        raise ValueError(f"io_dtype must be one of {list(_IO_DTYPES)}. Received: {io_dtype!r}.")
    if quantize != "int8" and io_dtype not in (None, "float32"):
        raise ValueError(
            f"quantize={quantize!r} makes a file with float32 inputs and outputs. Received: io_dtype={io_dtype!r}. "
            'Leave it out, or use quantize="int8".'
        )
    if quantize == "int8" and calibration is None:
        raise ValueError(
            'quantize="int8" measures the range of every tensor, which needs data. Pass some hundred training '
            'samples: calibration=x_train[:500], or use quantize="dynamic", which needs none.'
        )
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be above 0. Received: {tolerance}.")
    return io_dtype or ("int8" if quantize == "int8" else "float32")


def _left_in_float(operators: tuple[OperatorCount, ...]) -> tuple[str, ...]:
    doors = ("QUANTIZE", "DEQUANTIZE")
    return tuple(op.name for op in operators if "float" in op.dtype and op.name not in doors)
