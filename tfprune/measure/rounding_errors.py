"""Which layers a quantized file computes least exactly: a table, a picture, and what to leave in float."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.markup import escape
from rich.table import Table

from tfprune.common.checks import check_not_negative
from tfprune.common.tables import Report, new_table
from tfprune.distillation import Distilled
from tfprune.exporting.calibration import check_ranges, gather_samples
from tfprune.exporting.convert import to_tflite
from tfprune.exporting.export_options import check_exportable
from tfprune.exporting.inputs import check_model
from tfprune.exporting.layer_operators import is_unnamed, named_layers
from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.layerwise import TensorError, tensor_errors
from tfprune.exporting.modes import MODES
from tfprune.graph import functional
from tfprune.graph.chains import chains
from tfprune.measure.heat_map import draw_heat_map
from tfprune.quantization import is_quantize_aware

_MAX_CALIBRATION = 500
_MAX_COMPARED = 32


@dataclass(frozen=True)
class RoundingError:
    """How far off what one operator makes is.

    Attributes:
        layers: The layers of the model that the operator does the work of: a convolution with its normalization and
            activation is one operator. Empty for what the converter made, and at one of several outputs, whose
            names it drops.
        operator: The operator, as LiteRT names it.
        error: RMS error relative to the standard deviation of the float model's numbers.
        added: By how much that is more than the largest error of what goes in; negative where an operator averages
            errors out.
    """

    layers: tuple[str, ...]
    operator: str
    error: float
    added: float


@dataclass(frozen=True)
class QuantizationErrors(Report):
    """How far a quantized file is off, operator by operator; printed as a table.

    Attributes:
        model: The model's name.
        quantize: The mode.
        num_samples: How many samples the files were compared on.
        rows: One row for each operator, in the order in which data flows.
    """

    model: str
    quantize: str
    num_samples: int
    rows: tuple[RoundingError, ...]

    def worst(self, max_added: float) -> tuple[str, ...]:
        """Return the layers that add more than so much to the error, those that add most first.

        They are the ones to leave in float: `LayerPrecisions(exclude=[...])` for `export`, or
        `quantize_aware(model, exclude=[...])`.

        Args:
            max_added: What a layer may add to the relative error.

        Raises:
            ValueError: If `max_added` is not a number of at least 0.

        Example:

        >>> rows = (RoundingError(("conv",), "CONV_2D", 0.25, 0.25), RoundingError(("last",), "ADD", 0.5, 0.25))
        >>> QuantizationErrors("net", "int8", 8, rows).worst(0.1)
        ('conv', 'last')
        """
        limit = check_not_negative("max_added", max_added)
        adding = sorted((row for row in self.rows if row.added > limit), key=lambda row: -row.added)
        return tuple(dict.fromkeys(name for row in adding for name in row.layers))

    def to_table(self) -> Table:
        """Return one row per operator, with the one that adds most below."""
        title = f"Errors of {self.model} in {self.quantize}, on {self.num_samples} samples"
        table = new_table(escape(title), ["layers", "operator"], ["relative error", "added"])
        for row in self.rows:
            table.add_row(escape(", ".join(row.layers)), row.operator, f"{row.error:.4f}", f"{row.added:+.4f}")
        named = [row for row in self.rows if row.layers]
        if named:
            most = max(named, key=lambda row: row.added)
            table.caption = escape(f"Most is added by {', '.join(most.layers)}: the first to leave in float.")
        return table

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the errors as a heat map: a row per operator, dark where the error is large.

        Args:
            path: Where the picture goes; ends in `.svg` or `.png`.

        Returns:
            The path.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the path ends in something else.
            OSError: If it cannot be written.
        """
        names = [", ".join(row.layers) or row.operator for row in self.rows]
        values = np.array([[row.error, row.added] for row in self.rows])
        return draw_heat_map(path, names, ["error", "added"], values, "relative RMS error")


def quantization_errors(
    model: keras.Model, data: Any, *, quantize: str = "int8", precisions: LayerPrecisions | None = None
) -> QuantizationErrors:
    """Quantize a model in memory, and say which layers lose most by it.

    The float file and the quantized one run side by side, operator by operator. What a layer adds to the error shows
    which to leave in float or at more bits; `export` says how good the whole is. Nothing is written, and the model is
    not changed.

    Args:
        model: A built functional or sequential Keras model whose inputs have fixed shapes, batch aside; one that is not
            quantize-aware.
        data: Samples of real inputs, scaled as in training, in any form that `fit` takes. Ranges are measured on up to
            500, and the files compared on up to 32.
        quantize: A mode of `tfprune.export` but for None: `"float16"`, `"dynamic"`, `"int8"`, `"int16x8"`,
            `"int8_weights"` or `"int4_weights"`.
        precisions: Layers that stay in float or are stored in more bits, and scales for blocks of weights.

    Returns:
        One row per operator; print it for a table, `plot` it, or ask for the `worst`.

    Raises:
        ImportError: If a mode needs a package that is not installed.
        TypeError: If `model` is not a Keras 3 model, or the data has another form.
        ValueError: If the model is not built or is quantize-aware, the mode is unknown, or the data does not fit.
        RuntimeError: If the converter refuses the model.

    Example:

    >>> layers = [keras.layers.Dense(8, activation="tanh", name="hidden"), keras.layers.Dense(2, name="last")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> found = quantization_errors(model, np.random.default_rng(0).normal(size=(50, 4)))
    >>> [(row.layers, row.operator) for row in found.rows]
    [(('hidden',), 'FULLY_CONNECTED'), (('hidden',), 'TANH'), (('last',), 'FULLY_CONNECTED')]
    """
    modes = [mode for mode in MODES if mode is not None]
    if quantize not in modes:
        raise ValueError(f"quantize must be one of {modes}. Received: {quantize!r}.")
    model = check_model(model.student if isinstance(model, Distilled) else model)
    if is_quantize_aware(model):
        raise ValueError(
            f"{model.name!r} is quantize-aware, so it rounds as its int8 file does. Give the model before "
            "quantize_aware, or tfprune.strip(model), to see what rounding costs."
        )
    if precisions is not None:
        precisions.check_mode(quantize)
    check_exportable(model, quantize)
    samples = gather_samples(data, model, _MAX_CALIBRATION, "data")
    if MODES[quantize].is_calibrated:
        check_ranges(samples, MODES[quantize].num_levels)
    file = to_tflite(model, quantize, samples, MODES[quantize].io_dtypes[0], precisions=precisions)
    real = to_tflite(model, None, samples, "float32")
    count = min(_MAX_COMPARED, len(next(iter(samples.values()))))
    known = {chain[-1].name for chain in chains(model)}
    end = tuple(functional(model).output_names) if len(model.outputs) == 1 else ()
    rows = [_row(each, known, end) for each in tensor_errors(file, real, samples, count)]
    return QuantizationErrors(model.name, quantize, count, tuple(rows))


def _row(found: TensorError, known: set[str], end: tuple[str, ...]) -> RoundingError:
    layers = named_layers(found.tensor, known)
    return RoundingError(layers or (end if is_unnamed(found.tensor) else ()), found.operator, found.error, found.added)
