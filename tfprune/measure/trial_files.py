"""Files of one model with layers stored in several ways, from one conversion, and how far off each is."""

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from tfprune.exporting.calibration import spread
from tfprune.exporting.convert import calibrated_model, to_tflite
from tfprune.exporting.inputs import Samples
from tfprune.exporting.layer_operators import (
    LayerOperator,
    NotStorableError,
    layer_operators,
    named_layers,
    operator_settings,
)
from tfprune.exporting.layer_precisions import LayerPrecisions
from tfprune.exporting.layer_storage import quantize_but, store_weights
from tfprune.exporting.signature import name_outputs
from tfprune.exporting.weight_blocks import can_have_blocks, unfit_for_blocks
from tfprune.graph.chains import chains
from tfprune.tflite.model import TFLiteModel
from tfprune.tflite.unpacking import TFLiteFile

LEVELS = {
    "int8": ("int8", "float32"),
    "int8_weights": ("int8_weights", "float32"),
    "int4_weights": ("int4_weights", "int8_weights", "float32"),
}
"""What a layer can be stored as in the files of a mode, fewest bits first."""


class Trial(NamedTuple):
    """A file that was tried.

    Attributes:
        error: Largest RMS error of an output relative to the standard deviation of the float file's.
        num_bytes: Its size.
    """

    error: float
    num_bytes: int


class TrialFiles:
    """Makes files of a model and measures them.

    Args:
        model: The model.
        samples: Samples for calibration.
        quantize: The mode: a key of `LEVELS`.
        io_dtype: dtype of the inputs and outputs of int8 files.
        block_size: How many 4-bit weights have a scale together; None for an output channel.
        max_compared: How many samples files are compared on.
    """

    def __init__(
        self,
        model: keras.Model,
        samples: Samples,
        quantize: str,
        io_dtype: str,
        block_size: int | None,
        max_compared: int,
    ) -> None:
        self.model, self.quantize, self.io_dtype, self.block_size = model, quantize, io_dtype, block_size
        self.compared = spread(samples, max_compared)
        self.real = to_tflite(model, None, samples, "float32")
        self._expected = TFLiteModel(self.real).predict_by_name(self.compared)
        self._source, self._more_bytes = self.real, 0
        if quantize == "int8":
            self._source, self._more_bytes = calibrated_model(model, samples, io_dtype)
        self._operators = layer_operators(self._source, model)
        self._layers = {chain[-1].name: chain[-1] for chain in chains(model)}
        self.levels = self._levels()

    def _levels(self) -> dict[str, tuple[str, ...]]:
        """What each layer with a kernel can be stored as."""
        fit = can_have_blocks(self._source)  # those that have a form in 4 bits, of which all others keep 8
        if self.block_size is not None:
            fit -= set(unfit_for_blocks(self._source, fit, self.block_size))
        levels: dict[str, tuple[str, ...]] = {}
        for operator in self._operators:
            names = named_layers(operator.kernel, self._layers) or operator.layers
            if operator.kernel and names:
                every = self._every_level(operator)
                if every[0] == "int4_weights" and operator.output not in fit:
                    every = every[1:]
                levels[names[-1]] = min(levels.get(names[-1], every), every, key=len)
        return levels

    def _every_level(self, operator: LayerOperator) -> tuple[str, ...]:
        if self.quantize == "int8":
            try:
                quantize_but(self._source.content, [operator], self.io_dtype)
            except NotStorableError:
                return ("int8",)
        return LEVELS[self.quantize]

    def precisions(self, chosen: Mapping[str, str]) -> LayerPrecisions:
        """Return what to ask `export` for, so that layers are stored as was chosen.

        Args:
            chosen: What each layer is stored as, by its name.
        """
        return layer_precisions(self._layers, self.quantize, chosen, self.block_size)

    def measure(self, chosen: Mapping[str, str]) -> Trial:
        """Return how large a file is, and how far off.

        Args:
            chosen: What each layer is stored as, by its name.
        """
        settings = operator_settings(self._operators, self.model, self.precisions(chosen))
        if self.quantize == "int8":
            excluded = [each for each in self._operators if each.output in settings]
            content = quantize_but(self._source.content, excluded, self.io_dtype)
            file = name_outputs(TFLiteFile(content), self.model)
        else:
            blocks = self.block_size if "int4_weights" in chosen.values() else None
            file = store_weights(self._source, self.quantize, self._operators, settings, blocks)
        found = TFLiteModel(file).predict_by_name(self.compared)
        errors = [_error(found[name], values) for name, values in self._expected.items()]
        return Trial(max(errors), len(file.content) + self._more_bytes)


def layer_precisions(
    layers: Mapping[str, keras.layers.Layer], quantize: str, chosen: Mapping[str, str], block_size: int | None
) -> LayerPrecisions:
    """Return what to ask `export` for, so that layers are stored as was chosen.

    Args:
        layers: The layers of the model by their names.
        quantize: The mode.
        chosen: What each layer is stored as, by its name.
        block_size: How many 4-bit weights have a scale together.
    """
    kept = [layers[name] for name, level in chosen.items() if level == "float32"]
    others = {layers[name]: level for name, level in chosen.items() if level not in ("float32", quantize)}
    blocks = block_size if "int4_weights" in chosen.values() else None
    return LayerPrecisions(exclude=kept or None, overrides=others or None, block_size=blocks)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found.astype(np.float64) - expected) ** 2)) / (expected.std() or 1.0))
