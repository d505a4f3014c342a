"""Whether a `.tflite` file computes what its Keras model computes."""

import dataclasses
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.exporting.channels import far_apart, far_channel, lost_channels, mostly_equal
from tfprune.exporting.inputs import Samples, keras_outputs
from tfprune.exporting.nudging import nudged_outputs
from tfprune.exporting.operators import output_scales
from tfprune.exporting.signature import output_names
from tfprune.quantization import is_quantize_aware, strip
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile


class ExportMismatchError(RuntimeError):
    """The converted file computes something else than the Keras model; it was not written."""


@dataclass(frozen=True)
class OutputError:
    """How far one output of the file is from the Keras model's.

    Attributes:
        name: The output's name in the file's signature.
        max_abs_error: Largest absolute difference, in units of the output.
        mean_abs_error: Mean absolute difference, in units of the output.
        relative_rms_error: RMS difference over the standard deviation of the Keras output, or over its RMS if
            it is constant.
        max_error_lsb: Largest difference in steps of a quantised output; None for a float output.
        top1_agreement: Share of samples with the same argmax; None unless the output is `(samples, classes)`.
        allowed_rms_error: RMS difference up to which the file passes, in units of the output.
        rms_error: RMS difference, in units of the output.
        within_two_steps: Share of the numbers that are two steps or less apart; None for a float output.
        lost_channels: Channels whose numbers all lie within two steps, beside others that are far larger.
    """

    name: str
    max_abs_error: float
    mean_abs_error: float
    relative_rms_error: float
    max_error_lsb: float | None
    top1_agreement: float | None
    allowed_rms_error: float
    rms_error: float
    within_two_steps: float | None
    lost_channels: tuple[int, ...] = ()


def compare(
    expected: np.ndarray,
    actual: np.ndarray,
    tolerance: float,
    step: float = 0.0,
    lsb: float = 0.0,
    name: str = "output_0",
) -> OutputError:
    """Return the differences between the Keras output and the file's output.

    The error allowed is `min(tolerance * rms, tolerance * std + step * rms + lsb)`, with the RMS and the standard
    deviation of `expected`. The second term measures against what the output *varies*, so that a file that
    ignores its input fails even if the outputs have a large mean; one step of the number format is free, so
    that an honest file with nearly constant outputs passes. The first term stops a file whose step is as
    large as the outputs.

    Args:
        expected: The Keras outputs, shape `(samples, ...)`.
        actual: The file's outputs, dequantised, same shape.
        tolerance: Largest relative RMS error.
        step: Relative step of the file's number format.
        lsb: Scale of the output if it is quantised, in units of the output; otherwise 0.
        name: The output's name.

    Returns:
        The differences.

    Raises:
        ValueError: If the Keras outputs are not all finite.
        ExportMismatchError: If the shapes differ.

    Example:

    >>> import numpy as np
    >>> error = compare(np.array([[0.0, 4.0]]), np.array([[0.5, 4.0]]), tolerance=0.1, lsb=0.25)
    >>> error.max_abs_error, error.max_error_lsb, error.top1_agreement
    (0.5, 2.0, 1.0)
    """
    if expected.shape != actual.shape:
        raise ExportMismatchError(f"Output {name!r}: Keras gives shape {expected.shape}, the file {actual.shape}.")
    reference, other = expected.astype(np.float64), actual.astype(np.float64)
    if not np.isfinite(reference).all():
        raise ValueError(
            f"The Keras model's output {name!r} has NaN or infinite values on the samples. Train it again."
        )
    difference = np.abs(other - reference)
    rms_error, rms = _rms(difference), _rms(reference)
    spread = float(reference.std()) or rms  # a constant output, or a single number, has no spread
    classes = reference.ndim == 2 and reference.shape[1] > 1
    return OutputError(
        name=name,
        max_abs_error=float(difference.max()),
        mean_abs_error=float(difference.mean()),
        relative_rms_error=rms_error / (spread or 1.0),
        max_error_lsb=float(difference.max() / lsb) if lsb else None,
        top1_agreement=float((reference.argmax(1) == other.argmax(1)).mean()) if classes else None,
        allowed_rms_error=min(tolerance * rms, tolerance * spread + step * rms + lsb),
        rms_error=rms_error,
        within_two_steps=float(1 - far_apart(reference, other, lsb).mean()) if lsb else None,
    )


def verify(
    file: TFLiteFile,
    model: keras.Model,
    samples: Samples,
    tolerance: float,
    step: float = 0.0,
    share_far: float | None = None,
) -> tuple[OutputError, ...]:
    """Run the file and the Keras model on the same samples, and return the differences.

    Args:
        file: The file.
        model: The Keras model, as the user gave it.
        samples: Arrays of shape `(samples, ...)` by input name.
        tolerance: Largest relative RMS error, as in `compare`.
        step: Relative step of the file's number format, as in `compare`.
        share_far: Which share of the numbers, in every channel too, may be more than two steps off, if the model
            rounds as the file does. More may be where a network enlarges the smallest differences: twice as many as
            move that far if 1 in 100 numbers moves by a step wherever the model rounds.

    Returns:
        One entry per output.

    Raises:
        ExportMismatchError: If an output is further from the model's than allowed, or not finite.
        RuntimeError: If the runtime cannot run the file.
    """
    loaded = TFLiteModel(file)
    names, expected = output_names(model), keras_outputs(model, samples)
    real = keras_outputs(strip(model), samples) if is_quantize_aware(model) else expected
    outputs = _run(loaded, samples)
    if set(outputs) != set(names):
        raise ExportMismatchError(f"The Keras model has the outputs {names}, the file {list(outputs)}.")
    scales, tensors = output_scales(file), {details.name: details for details in loaded.outputs}
    errors: list[OutputError] = []
    for name, ours, unrounded in zip(names, expected, real, strict=True):
        theirs, details = outputs[name], tensors[name]
        lsb = details.scale or scales.get(details.index, 0.0)
        error = compare(ours, theirs, tolerance, step, lsb, name)
        if not error.rms_error <= error.allowed_rms_error:  # also true of NaN
            raise ExportMismatchError(_explain(error, tolerance))
        wrong = far_channel(ours, theirs, 2 * tolerance, lsb) if lsb and share_far is None else ""
        if wrong:
            raise ExportMismatchError(f"{_explain(error, tolerance)} {wrong}")
        far = far_apart(ours, theirs, lsb)
        if share_far is not None and mostly_equal(far, share_far):
            nudged = nudged_outputs(model, samples)[len(errors)]
            wrong = mostly_equal(far, share_far, far_apart(ours, nudged, lsb))
            if wrong:
                raise ExportMismatchError(_explain_exact(error, wrong))
        errors.append(dataclasses.replace(error, lost_channels=tuple(lost_channels(unrounded, lsb))))
    return tuple(errors)


def _run(loaded: TFLiteModel, samples: Samples) -> dict[str, np.ndarray]:
    try:
        return loaded.predict_by_name(_as_real(samples, loaded))
    except RuntimeError as error:  # some kernels look at their inputs' types only when they run
        raise RuntimeError(
            f"The converter wrote a file that this runtime cannot run, and it was not kept: {error}. "
            "Replace the layer that it names, or try another quantize mode."
        ) from error


def _as_real(samples: Samples, loaded: TFLiteModel) -> Samples:
    # calibration samples are real numbers, even where their dtype happens to be that of a quantized input
    quantized = {details.name for details in loaded.inputs if details.scale}
    return {name: array.astype(np.float32) if name in quantized else array for name, array in samples.items()}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _explain(error: OutputError, tolerance: float) -> str:
    return (
        "The .tflite file does not compute what the Keras model computes, and was not written. "
        f"Output {error.name!r}: RMS error {error.rms_error:.3g}, allowed {error.allowed_rms_error:.3g} "
        f"(relative {error.relative_rms_error:.3g}, tolerance {tolerance:g}), largest {error.max_abs_error:.3g}. "
        "For int8, calibrate with data that looks like the real inputs, scaled the same way, and shrink dead "
        "channels first. Raise `tolerance` only if the accuracy of the file is measured elsewhere."
    )


def _explain_exact(error: OutputError, wrong: str) -> str:
    return (
        "The .tflite file does not compute what the quantize-aware model computes, and was not written. "
        f"Output {error.name!r}: {wrong}; the largest difference is {error.max_abs_error:.3g}. An operator of the file "
        "rounds elsewhere than the model does: leave layers in float until it passes, tfprune.quantize_aware(model, "
        "exclude=[...]), beginning with concatenations and what follows them. Pass "
        "options=tfprune.ExportOptions(tolerance=0.25) only if the accuracy of the file is measured elsewhere."
    )
