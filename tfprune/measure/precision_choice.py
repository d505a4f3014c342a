"""`choose_precisions`: which layers of a file get more bits, by what each costs in bytes and in error."""

from dataclasses import dataclass
from typing import Any

import keras
from rich.markup import escape
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.exporting.calibration import check_ranges, gather_samples
from tfprune.exporting.export_options import ExportOptions, check_arguments, check_exportable
from tfprune.exporting.inputs import check_model
from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.modes import MODES
from tfprune.graph.chains import chains
from tfprune.measure.trial_files import LEVELS, Trial, TrialFiles, layer_precisions
from tfprune.quantization import is_quantize_aware

_MAX_CALIBRATION = 500
_MAX_COMPARED = 32


@dataclass(frozen=True)
class LayerPrecision:
    """How one layer is stored.

    Attributes:
        layer: Its name.
        precision: `"int4_weights"`, `"int8_weights"`, `"int8"` or `"float32"`.
        error: Relative error of the outputs when this layer alone is stored in the fewest bits.
        saved_bytes: By how much those make the file smaller.
    """

    layer: str
    precision: str
    error: float
    saved_bytes: int


@dataclass(frozen=True)
class PrecisionChoice(Report):
    """How the layers of a file are stored; printed as a table.

    Attributes:
        model: The model's name.
        quantize: The mode to export in.
        block_size: How many 4-bit weights have a scale together; None for an output channel.
        num_samples: How many samples files were compared on.
        error: RMS error of the file's outputs relative to the standard deviation of the float file's; the largest of
            several outputs.
        file_bytes: The size of the file.
        least_error: The error with all layers in float32.
        most_error: The error with all layers in the fewest bits.
        least_bytes: The size of the file then.
        float_bytes: The size of the float32 file.
        layers: One row for each layer with a kernel.
    """

    model: str
    quantize: str
    block_size: int | None
    num_samples: int
    error: float
    file_bytes: int
    least_error: float
    most_error: float
    least_bytes: int
    float_bytes: int
    layers: tuple[LayerPrecision, ...]

    def precisions(self, model: keras.Model) -> LayerPrecisions:
        """Return what to ask `export` for: `ExportOptions(precisions=...)`.

        Args:
            model: The model that the choice was made for.

        Raises:
            KeyError: If it has no layer of a name that was chosen.
        """
        known = {chain[-1].name: chain[-1] for chain in chains(model)}
        chosen = {row.layer: row.precision for row in self.layers}
        return layer_precisions(known, self.quantize, chosen, self.block_size)

    def to_table(self) -> Table:
        """Return one row per layer."""
        title = f"Precisions of {self.model}: {self.file_bytes:,} B, relative error {self.error:.4f}"
        table = new_table(escape(title), ["layer", "stored as"], ["error alone", "saved B"])
        for row in self.layers:
            table.add_row(escape(row.layer), row.precision, f"{row.error:.4f}", f"{row.saved_bytes:,}")
        table.caption = (
            f"All in the fewest bits: {self.least_bytes:,} B, {self.most_error:.4f}. In float32: {self.float_bytes:,} B"
            f", {self.least_error:.4f}. On {self.num_samples} samples."
        )
        return table


def choose_precisions(
    model: keras.Model,
    data: Any,
    *,
    quantize: str = "int8",
    max_error: float | None = None,
    max_bytes: int | None = None,
    block_size: int | None = None,
    io_dtype: str | None = None,
) -> PrecisionChoice:
    """Choose which layers of a `.tflite` file get more bits, until it is exact enough or as large as it may be.

    Each layer is measured alone: how far off the outputs are when it is stored in the fewest bits and all others are
    in float, and how many bytes that saves. All begin with the fewest bits, and the layer that removes most squared
    error per byte gets more, again and again; the whole file is measured after each step. What proves unnecessary in
    the end is taken back. The model is converted once, and nothing is written.

    Reference: the greedy rule for separable problems; Fox, "Discrete Optimization via Marginal Analysis", Management
    Science 13(3), 1966.

    Args:
        model: A built functional or sequential Keras model whose inputs have fixed shapes, batch aside; one that is not
            quantize-aware.
        data: Samples of real inputs, scaled as in training, in any form that `fit` takes. Ranges are measured on up to
            500, and files compared on up to 32.
        quantize: `"int8"` (layers in int8 or float32), `"int8_weights"` (weights in 8 bits or float32) or
            `"int4_weights"` (in 4 bits, 8 bits or float32).
        max_error: RMS error of the outputs, relative to the standard deviation of the float file's, that is exact
            enough. The file becomes no larger than it takes.
        max_bytes: How large the file may be. Without `max_error` all of it is used that makes the file more exact. An
            int8 file with many operators may come out about 2% larger, by what the converter adds in the end.
        block_size: How many 4-bit weights have a scale together: 16, 32, 64, 128 or 256; layers that do not divide into
            blocks get 8 bits. None: the weights of an output channel.
        io_dtype: dtype of the inputs and outputs of an int8 file, as in `export`, whose own rounding counts too.

    Returns:
        A report; `precisions(model)` is what to export with.

    Raises:
        ImportError: If a mode needs a package that is not installed.
        TypeError: If `model` is not a Keras 3 model, or the data has another form.
        ValueError: If the model is not built or is quantize-aware, an argument or the data does not fit, or no choice
            meets the limits.
        RuntimeError: If the converter refuses the model.

    Example:

    >>> import numpy as np
    >>> layers = [keras.layers.Dense(64, activation="tanh", name="hidden"), keras.layers.Dense(2, name="last")]
    >>> model = keras.Sequential([keras.Input((16,)), *layers])
    >>> choice = choose_precisions(model, np.random.default_rng(0).normal(size=(50, 16)), max_error=0.2)
    >>> [row.precision for row in choice.layers], choice.precisions(model).exclude
    (['int8', 'int8'], None)
    """
    io_dtype = _check(model, quantize, max_error, max_bytes, block_size, io_dtype)
    model = check_model(model)
    check_exportable(model, quantize)
    samples = gather_samples(data, model, _MAX_CALIBRATION)
    if MODES[quantize].is_calibrated:
        check_ranges(samples, MODES[quantize].num_levels)
    files = TrialFiles(model, samples, quantize, io_dtype, block_size, _MAX_COMPARED)
    search = _Search(files, max_error, max_bytes)
    search.run()
    return PrecisionChoice(
        model=model.name,
        quantize=quantize,
        block_size=block_size,
        num_samples=len(next(iter(files.compared.values()))),
        error=search.now.error,
        file_bytes=search.now.num_bytes,
        least_error=search.floor.error,
        most_error=search.start.error,
        least_bytes=search.start.num_bytes,
        float_bytes=len(files.real.content),
        layers=tuple(search.rows()),
    )


def _check(
    model: Any, quantize: str, max_error: float | None, max_bytes: int | None, block_size: int | None, dtype: str | None
) -> str:
    if quantize not in LEVELS:
        raise ValueError(f"quantize must be one of {list(LEVELS)}: no others mix. Received: {quantize!r}.")
    if max_error is None and max_bytes is None:
        raise ValueError("Nothing says how exact or how small the file has to be. Pass max_error, max_bytes, or both.")
    for name, value in (("max_error", max_error), ("max_bytes", max_bytes)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0. Received: {value!r}.")
    if isinstance(model, keras.Model) and is_quantize_aware(model):
        raise ValueError(
            f"{model.name!r} is quantize-aware: it has learned which numbers it rounds. Give the model before "
            "quantize_aware, or tfprune.strip(model)."
        )
    options = ExportOptions(precisions=LayerPrecisions(block_size=block_size))
    return check_arguments(quantize, (), dtype, options)


class _Search:
    """Which layers are stored as what."""

    def __init__(self, files: TrialFiles, max_error: float | None, max_bytes: int | None) -> None:
        self.files, self.max_error, self.max_bytes = files, max_error, max_bytes
        in_float = {name: levels[-1] for name, levels in files.levels.items()}
        self.floor = files.measure(in_float)
        self.alone = {
            name: [files.measure({**in_float, name: level}) for level in levels[:-1]] + [self.floor]
            for name, levels in files.levels.items()
        }
        # What a runtime has no form of in fewer bits stays in float there, and saves nothing.
        self.place = {
            name: min(range(len(trials)), key=lambda place: (trials[place].num_bytes, -place))
            for name, trials in self.alone.items()
        }
        self.first = dict(self.place)
        self.start = self.now = files.measure(self._chosen(self.place))

    def run(self) -> None:
        if self.max_bytes is not None and self.start.num_bytes > self.max_bytes:
            raise ValueError(
                f"The smallest file has {self.start.num_bytes:,} bytes, and max_bytes is {self.max_bytes:,}. Allow "
                "more, use a mode of fewer bits, or prune the model first."
            )
        while not self._is_exact() and (step := self._next()) is not None:
            self.place[step] += 1
            self.now = self.files.measure(self._chosen(self.place))
        if self.max_error is not None and not self._is_exact():
            limit = "" if self.max_bytes is None else f" within {self.max_bytes:,} bytes"
            raise ValueError(
                f"No choice of layers brings the error below {self.max_error:g}{limit}: {self.now.error:.3g} was "
                f"reached, with {self.now.num_bytes:,} bytes, and {self.floor.error:.3g} is left with all kernels in "
                "float32. Allow more, or for an int8 file leave its outputs in float: io_dtype='float32'."
            )
        if self.max_error is not None:
            self._take_back()

    def rows(self) -> list[LayerPrecision]:
        chosen = self._chosen(self.place)
        return [
            LayerPrecision(name, chosen[name], trials[first].error, self.floor.num_bytes - trials[first].num_bytes)
            for name, trials in self.alone.items()
            for first in [self.first[name]]
        ]

    def _is_exact(self) -> bool:
        return self.max_error is not None and self.now.error <= self.max_error

    def _next(self) -> str | None:
        """The layer that removes most error per byte with its next level, among those that fit."""
        best: tuple[float, str] | None = None
        for name, trials in self.alone.items():
            if self.place[name] + 1 == len(trials):
                continue
            fewer, more = trials[self.place[name]], trials[self.place[name] + 1]
            price = more.num_bytes - fewer.num_bytes
            gain = fewer.error**2 - more.error**2
            fits = self.max_bytes is None or self.now.num_bytes + price <= self.max_bytes
            if fits and (gain > 0 or self.max_error is not None):
                best = max(best or (-float("inf"), ""), (gain / max(price, 1), name))
        return None if best is None else best[1]

    def _take_back(self) -> None:
        """Give layers fewer bits again, those that save most first, while the file is exact enough."""
        raised = [name for name in self.place if self.place[name] > self.first[name]]
        for name in sorted(raised, key=lambda name: self.alone[name][self.first[name]].num_bytes):
            for place in range(self.first[name], self.place[name]):
                trial: Trial = self.files.measure(self._chosen({**self.place, name: place}))
                if (
                    self.max_error is not None
                    and trial.error <= self.max_error
                    and trial.num_bytes < self.now.num_bytes
                ):
                    self.place[name], self.now = place, trial
                    break

    def _chosen(self, place: dict[str, int]) -> dict[str, str]:
        return {name: levels[place[name]] for name, levels in self.files.levels.items()}
