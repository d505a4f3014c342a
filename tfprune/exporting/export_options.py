"""What can be asked of `export`, and the checks of it that need no work."""

from dataclasses import dataclass
from typing import Any

import keras

from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.metadata import ImageMetadata
from tfprune.exporting.modes import MODES, Mode
from tfprune.exporting.weight_only import check_installed
from tfprune.graph.chains import chains
from tfprune.quantization import check_finite_weights

_MAX_FILE_BYTES = 2**31 - 1  # offsets in a flatbuffer are signed 32-bit numbers


@dataclass(frozen=True)
class ExportOptions:
    """The rarer wishes to `export`.

    Attributes:
        sparse: Store kernels with many zeros as the others and their positions. The file gets smaller, not faster:
            a device unpacks them when it loads the file (some float networks of 1x1 convolutions excepted).
        metadata: Labels and normalization for the task libraries of phones.
        tolerance: Largest RMS error relative to the standard deviation of the outputs. None for the mode's default:
            2e-3 for float, 5e-3 for float16, 0.1 for dynamic, int16x8 and int8 weights, 0.25 for int8, 0.5 for int4
            weights; at least 0.05 for a model in half precision.
        fold_normalizations: Put each BatchNormalization that is not behind a layer with a kernel into the layers that
            read it, where all of them can take it exactly, as it would be two operators of its own. It stays in a file
            with rounded kernels where its scales differ too much for that.
        max_samples: Use at most this many calibration samples: evenly spread over arrays, the first ones of a
            dataset (shuffle it if it is sorted by class).
        precisions: Layers that stay in float or are stored in more bits, and scales for blocks of weights;
            `tfprune.choose_precisions` finds them. None: all layers as the mode says.

    Example:

    >>> ExportOptions(sparse=True, max_samples=200).tolerance is None
    True
    """

    sparse: bool = False
    metadata: ImageMetadata | None = None
    tolerance: float | None = None
    fold_normalizations: bool = True
    max_samples: int = 500
    precisions: LayerPrecisions | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0. Received: {self.tolerance}.")
        if self.max_samples < 1:
            raise ValueError(f"max_samples must be 1 or more. Received: {self.max_samples}.")
        if self.metadata is not None and not isinstance(self.metadata, ImageMetadata):
            raise TypeError(f"metadata must be a tfprune.ImageMetadata. Received: {type(self.metadata).__name__}.")
        if self.precisions is not None and not isinstance(self.precisions, LayerPrecisions):
            raise TypeError(f"precisions must be tfprune.LayerPrecisions. Received: {type(self.precisions).__name__}.")


def check_arguments(
    quantize: str | None, calibration: Any, io_dtype: str | None, options: ExportOptions, aware: bool = False
) -> str:
    """Return the dtype of the file's inputs and outputs; raise if arguments do not fit each other or the model."""
    if quantize not in MODES:
        raise ValueError(f"quantize must be one of {list(MODES)}. Received: {quantize!r}.")
    if aware and quantize != "int8":
        raise ValueError(
            f"The model is quantize-aware: it computes what an int8 file does. Received: quantize={quantize!r}. "
            'Pass quantize="int8", or export tfprune.strip(model).'
        )
    mode = MODES[quantize]
    if mode.weight_bits:
        check_installed(quantize)
    io_dtype = _check_io_dtype(quantize, mode, io_dtype)
    if mode.is_calibrated and calibration is None and not aware:
        raise ValueError(
            f'quantize="{quantize}" measures the range of every tensor, which needs data. Pass some hundred training '
            'samples: calibration=x_train[:500], or use quantize="dynamic", which needs none.'
        )
    if options.sparse and mode.no_sparsity:
        raise ValueError(
            f"sparse=True cannot be used with quantize={quantize!r}: {mode.no_sparsity}. "
            'Leave it out, or use quantize=None, "float16" or "int8".'
        )
    if options.precisions is not None:
        options.precisions.check_mode(quantize, aware)
    if options.metadata is not None:
        options.metadata.check_io_dtype(io_dtype)
    return io_dtype


def check_size(model: keras.Model, quantize: str | None) -> None:
    """Raise if the file, or a larger one that the converter writes on the way to it, is sure to be too large."""
    num_bytes = int(model.count_params() * MODES[quantize].bytes_per_weight)
    if num_bytes > _MAX_FILE_BYTES:
        raise ValueError(
            f"Model {model.name!r} has {model.count_params():,} weights, for which TensorFlow's converter writes at "
            f"least {num_bytes / 1e9:.1f} GB with quantize={quantize!r}. A .tflite file can hold 2.1 GB. Shrink the "
            'model, use quantize="dynamic" (1 byte per weight), or export it in parts.'
        )


def check_exportable(model: keras.Model, quantize: str | None) -> None:
    """Raise if a file of this mode cannot compute what the model does, or not in this form."""
    check_size(model, quantize)
    if MODES[quantize].quantizes:
        check_finite_weights(model)
    for layer in (each[-1] for each in chains(model)):
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"Layer {layer.name!r} is stateful: it goes on from the batch before, and a .tflite file keeps nothing "
                "between two calls. Build it with stateful=False, and let the state be an input and an output: "
                "initial_state=, return_state=True."
            )


def _check_io_dtype(quantize: str | None, mode: Mode, io_dtype: str | None) -> str:
    known = list(dict.fromkeys(dtype for each in MODES.values() for dtype in each.io_dtypes))
    if io_dtype is not None and io_dtype not in known:
        raise ValueError(f"io_dtype must be one of {known}. Received: {io_dtype!r}.")
    if io_dtype is not None and io_dtype not in mode.io_dtypes:
        raise ValueError(
            f"quantize={quantize!r} makes a file with {' or '.join(mode.io_dtypes)} inputs and outputs. "
            f'Received: io_dtype={io_dtype!r}. Leave it out, or use quantize="int8".'
        )
    return io_dtype or mode.io_dtypes[0]
