"""`export`: convert, check, and only then write."""

import os
import warnings
from typing import Any

import keras

from tfprune.clustering import is_cluster_aware, strip_clusters
from tfprune.common.files import check_writable, gzip_size, write_atomically
from tfprune.distillation import Distilled
from tfprune.exporting.calibration import check_ranges, gather_samples, spread
from tfprune.exporting.convert import float32_twin, to_tflite, uses_half_precision
from tfprune.exporting.doors import at_the_door, check_doors, door_dtypes
from tfprune.exporting.export_options import ExportOptions, check_arguments, check_exportable
from tfprune.exporting.export_report import ExportReport
from tfprune.exporting.inputs import Samples, check_model, random_samples
from tfprune.exporting.layerwise import worst_layer
from tfprune.exporting.lost import lost_message
from tfprune.exporting.metadata import add_metadata
from tfprune.exporting.modes import HALF_PRECISION_TOLERANCE, MODES
from tfprune.exporting.operators import count_operators, min_runtime, zero_fraction
from tfprune.exporting.ranges import check_scales
from tfprune.exporting.reasons import float_operators
from tfprune.exporting.sparsity import check_zeros
from tfprune.exporting.verify import ExportMismatchError, verify
from tfprune.exporting.zeros import zeros_kept
from tfprune.quantization import computes_coarsely, is_quantize_aware, left_in_float
from tfprune.tflite.unpacking import TFLiteFile

_MAX_FAR = 1e-3  # of the numbers of a file that rounds as the model does; none in most networks
_MAX_FAR_COARSE = 0.05  # where some are a step off within the network, and become two behind sums and steep functions
_NUM_VERIFIED = 100  # enough to tell a broken file; the interpreter runs them one by one


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    calibration: Any = None,
    io_dtype: str | None = None,
    overwrite: bool = False,
    options: ExportOptions | None = None,
) -> ExportReport:
    """Write `model` as a `.tflite` file with a static batch of 1, after checking it against the model.

    The file is converted and compared with the Keras model in memory, and written only if their outputs agree:
    an older file at `path`, which `overwrite=True` gives up, stays until then. The model is not changed. A model in
    half precision (`mixed_float16`) is converted from a float32 copy, as devices have no half-precision kernels.

    Modes: None keeps float32; `"float16"` halves the file, and most devices still compute in float32;
    `"dynamic"` stores kernels as int8, with float inputs and outputs and no need for data; `"int8"` makes every
    operator integer, which is the fastest on phones and the only one on many microcontrollers and accelerators;
    `"int16x8"` keeps activations in 16 bits, for models that lose accuracy in int8, and has no fast kernels on
    CPUs; `"int8_weights"` and `"int4_weights"` store kernels small and compute in float, which keeps the accuracy
    and makes only the file smaller (they need `pip install "tfprune[weight-only]"`).

    A model from `quantize_aware` takes `"int8"` alone. Its ranges were learned in training, so it needs no
    calibration, and the file computes what the model does. Of one from `cluster_aware` the plain model is written, of
    one from `distill` its student.

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018.

    Args:
        model: A built functional or sequential Keras 3 model whose inputs have fixed shapes, batch aside.
        path: Where the file goes; ends in `.tflite`.
        quantize: None, `"float16"`, `"dynamic"`, `"int8"`, `"int16x8"`, `"int8_weights"` or `"int4_weights"`.
        calibration: Samples of real inputs, some hundreds, scaled as in training: an array `(samples, ...)`, a
            tuple `(x, y)`, a dict by input name, a `tf.data.Dataset`, or an iterable of batches. Needed for int8
            and int16x8 unless the model is quantize-aware, and the better check in every mode; without it the check
            uses random inputs.
        io_dtype: dtype of the file's float inputs and outputs. int8: `"int8"` (the default), `"uint8"` (asked for by
            MediaPipe Tasks) or `"float32"` (asked for by LiteRT.js). int16x8: `"float32"` (the default) or `"int16"`.
            Other modes: `"float32"` only. Where a layer left in float by `quantize_aware` reads an input or makes an
            output, that is rounded only if integers are asked for, and is float32 by default.
        overwrite: Whether to replace a file at `path`.
        options: Sparse storage, metadata for task libraries, and how the check is done; None for the defaults.

    Returns:
        What was written, and how close it is to the model.

    Raises:
        ImportError: If a mode needs a package that is not installed.
        FileExistsError: If there is a file at `path`, and `overwrite` is False.
        TypeError: If `model` is not a Keras 3 model, or `calibration` has an unknown form.
        ValueError: If the model is not built or too large, an argument does not fit the others, the calibration data
            does not fit the model, the file cannot have `io_dtype`, sparse storage would not make the file smaller, or
            numbers differ so much in size that no runtime would take the file.
        OSError: If `path` cannot be written.
        RuntimeError: If the converter refuses the model, or no kernel of this machine's runtime runs the file.
        ExportMismatchError: If the file's outputs differ from the model's by more than `tolerance`.

    Example:

    >>> import keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> data = np.random.default_rng(0).normal(size=(50, 4))
    >>> report = export(model, tempfile.mkdtemp() + "/model.tflite", quantize="int8", calibration=data)
    >>> report.io_dtype, report.float_operators, report.verified_on
    ('int8', (), '50 calibration samples')
    """
    options = options or ExportOptions()
    model = model.student if isinstance(model, Distilled) else model
    aware = isinstance(model, keras.Model) and is_quantize_aware(model)
    asked, io_dtype = io_dtype, check_arguments(quantize, calibration, io_dtype, options, aware)
    model = check_model(model)
    model = strip_clusters(model) if is_cluster_aware(model) else model
    target = check_writable(path, ".tflite", overwrite)
    check_exportable(model, quantize)
    excluded = {} if options.precisions is None else options.precisions.settings(model)
    if options.sparse:
        check_zeros(model)
    samples = None if calibration is None else gather_samples(calibration, model, options.max_samples)
    measured = None if aware else samples  # a quantize-aware model has its ranges; samples are for the check alone
    if measured is not None and MODES[quantize].is_calibrated:
        check_ranges(measured, MODES[quantize].num_levels)
    integer_doors = aware and asked not in (None, "float32")
    fold = options.fold_normalizations
    file = to_tflite(model, quantize, measured, io_dtype, options.sparse, integer_doors, fold, options.precisions)
    if asked is not None:
        check_doors(file, asked)
    if MODES[quantize].is_integer:
        check_scales(file)
    if options.metadata is not None:
        file = add_metadata(file, options.metadata)
    checked = random_samples(model) if samples is None else spread(samples, _NUM_VERIFIED)
    verified = _verify(file, model, at_the_door(file, checked) if integer_doors else checked, quantize, options)
    source = "random inputs" if samples is None else "calibration samples"
    write_atomically(target, file.content)
    return ExportReport(
        path=str(target),
        quantize=quantize,
        io_dtype=door_dtypes(file),
        file_bytes=len(file.content),
        gzip_bytes=gzip_size(file.content),
        operators=count_operators(file),
        float_operators=float_operators(
            file, quantize, left_in_float(model) if aware else dict.fromkeys(excluded, "on request")
        ),
        zero_fraction=zero_fraction(file),
        zeros_kept=zeros_kept(model, file),
        sparse=options.sparse,
        min_runtime=min_runtime(file),
        verified_on=f"{len(next(iter(checked.values())))} {source}",
        **verified,
    )


def _verify(
    file: TFLiteFile, model: keras.Model, samples: Samples, quantize: str | None, options: ExportOptions
) -> dict[str, Any]:
    """Return what the report says of the comparison with the model, or raise if the file computes something else."""
    mode = MODES[quantize]
    tolerance = options.tolerance
    if tolerance is None:
        tolerance = max(mode.tolerance, HALF_PRECISION_TOLERANCE if uses_half_precision(model) else 0.0)
    aware = is_quantize_aware(model)
    computed = float32_twin(model) if aware else model  # which rounds to the last bit as the file does
    share_far = None
    if aware and options.tolerance is None:
        share_far = _MAX_FAR_COARSE if computes_coarsely(model) else _MAX_FAR
    try:
        outputs = verify(file, computed, samples, tolerance, mode.step, share_far)
    except ExportMismatchError as error:
        if not mode.is_integer or aware:
            raise
        real = to_tflite(model, None, samples, "float32", False, False, options.fold_normalizations)
        raise ExportMismatchError(f"{error} {worst_layer(file, real, samples)}") from error
    for number, output in enumerate(outputs):
        if output.lost_channels:
            warnings.warn(lost_message(model, number, output), stacklevel=3)
    return {"tolerance": tolerance, "outputs": outputs}
