"""How single layers of a file are stored, where that is something else than what its mode says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.exporting.modes import MODES
from tfprune.graph.chains import chains
from tfprune.graph.exclude import Exclude, resolve_exclude

WEIGHT_MODES = tuple(name for name, mode in MODES.items() if name is not None and mode.weight_bits)
BLOCK_SIZES = (16, 32, 64, 128, 256)

Settings = dict[str, str | None]
"""What a layer is stored as, by its name: a mode that stores weights, or None for float32."""


@dataclass(frozen=True)
class LayerPrecisions:
    """Layers that a file stores in another way than its mode says, and kernels with more scales.

    Attributes:
        exclude: Layers that stay in float, as a list of layer objects or a function from a layer to bool; a layer
            stands for all layers inside it. For the modes `"int8"`, `"int8_weights"` and `"int4_weights"`.
        overrides: For layers `"int8_weights"` or `"int4_weights"` in place of the mode, as a dict from layer objects or
            a function from a layer to one of them or None. For those two modes.
        block_size: For `"int4_weights"`: one scale for so many weights of an output channel, instead of one for all of
            them: 16, 32, 64, 128 or 256. Kernels of convolutions and of `Dense`; depthwise ones stay as they are.

    Example:

    >>> layers = [keras.layers.Dense(32, name="first"), keras.layers.Dense(2, name="last")]
    >>> model = keras.Sequential([keras.Input((64,)), *layers])
    >>> LayerPrecisions(overrides={model.get_layer("last"): "int8_weights"}, block_size=32).block_size
    32
    """

    exclude: Exclude = None
    overrides: Mapping[keras.layers.Layer, str] | Callable[[keras.layers.Layer], str | None] | None = None
    block_size: int | None = None

    def __post_init__(self) -> None:
        if self.block_size is not None and self.block_size not in BLOCK_SIZES:
            raise ValueError(f"block_size must be one of {list(BLOCK_SIZES)}, or None. Received: {self.block_size!r}.")
        if self.overrides is not None and not (isinstance(self.overrides, Mapping) or callable(self.overrides)):
            raise TypeError(
                "overrides must be a dict from layer objects to modes, or a function from a layer to one. "
                f"Received: {self.overrides!r}."
            )

    def check_mode(self, quantize: str | None, aware: bool = False) -> None:
        """Raise if a mode cannot store layers in such ways.

        Args:
            quantize: The mode.
            aware: Whether the model is quantize-aware.

        Raises:
            ValueError: If it cannot.
        """
        if aware:
            raise ValueError(
                "The model is quantize-aware: which layers round was chosen when it was made. Leave precisions out, "
                "and pass tfprune.quantize_aware(model, exclude=[...])."
            )
        storing = " or ".join(map(repr, WEIGHT_MODES))
        if self.exclude is not None and quantize != "int8" and quantize not in WEIGHT_MODES:
            raise ValueError(
                f"exclude cannot be used with quantize={quantize!r}, which the converter does to all layers or none. "
                f"Use 'int8', {storing}."
            )
        if self.overrides is not None and quantize not in WEIGHT_MODES:
            raise ValueError(
                f"overrides cannot be used with quantize={quantize!r}: no converter mixes it with others. Use {storing}"
                "; for int8, exclude leaves layers in float."
            )
        if self.block_size is not None and quantize != "int4_weights":
            raise ValueError(f"block_size is for quantize='int4_weights'. Received: quantize={quantize!r}.")

    def settings(self, model: keras.Model) -> Settings:
        """Return the layers that are stored in another way than the mode says.

        Args:
            model: The model whose layers they are.

        Raises:
            TypeError: If something is named that is not a layer.
            ValueError: If a layer is not part of the model, has the name of one that is stored in another way, or is to
                be stored in a way that is not known.
        """
        excluded = resolve_exclude(model, self.exclude)
        chosen = self.overrides or {}
        if isinstance(chosen, Mapping):
            resolve_exclude(model, list(chosen), "overrides")
        setting: Callable[[Any], str | None] = chosen.get if isinstance(chosen, Mapping) else chosen
        found: dict[str, dict[str, str | None]] = {}
        for chain in chains(model):
            value = next((each for each in map(setting, reversed(chain)) if each is not None), "")
            if value and value not in WEIGHT_MODES:
                raise ValueError(f"overrides are {' or '.join(WEIGHT_MODES)}. Received: {value!r}.")
            found.setdefault(chain[-1].name, {})["float32" if excluded(chain[-1]) else value] = value
        mixed = sorted(name for name, values in found.items() if len(values) > 1)
        if mixed:
            raise ValueError(
                f"A file knows layers by their names, and several layers are called {mixed}, which are to be stored in "
                "different ways. Give them names of their own."
            )
        return {name: None if key == "float32" else key for name, values in found.items() for key in values if key}
