"""Samples and labels from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfprune.common.files import check_expansion
from tfprune.data import Batch, Inputs, Reader, inputs_of
from tfprune.data.inputs import file_inputs
from tfprune.graph import functional, is_graph
from tfprune.tflite.model import TFLiteModel
from tfprune_cli.errors import InputError

_NUMBERS = "biufV"  # V: types that NumPy does not know by itself, such as bfloat16


@dataclass(frozen=True)
class DataFile:
    """The arrays of a `.npz` or `.npy` file; the one of a `.npy` file is called `x`."""

    path: Path
    arrays: dict[str, np.ndarray]

    def inputs(self, model: keras.Model | Path) -> Any:
        """Return what goes into a loaded model, or into a `.tflite` file.

        Args:
            model: The model, or the path of the file.

        Returns:
            An array for one input, a dict by name for several.

        Raises:
            ValueError: If there are no such arrays.
        """
        return _inputs(model).picked(self.arrays, str(self.path))

    def labelled(self, model: keras.Model | Path) -> tuple[Any, np.ndarray]:
        """Return inputs as `inputs` does, and the labels `y`; raise InputError if there are none."""
        if "y" not in self.arrays:
            raise InputError(
                f"'{self.path}' has the arrays {list(self.arrays)}, and no labels: accuracy needs an array y. "
                "Save both: np.savez('data.npz', x=x, y=y)."
            )
        return self.inputs(model), self.arrays["y"]

    def read(self, model: keras.Model) -> tuple[Any, np.ndarray | None]:
        """Return inputs as `inputs` does, and the labels `y`, or None; raise if the inputs do not fit the model."""
        self.checked(model)
        return self.inputs(model), self.arrays.get("y")

    def checked(self, model: keras.Model) -> Batch:
        """Return inputs as the model is called with them, or raise if they do not fit it."""
        inputs = _inputs(model)
        batch = Reader(inputs.picked(self.arrays, str(self.path)), inputs, argument=f"'{self.path}'").arrays
        assert batch is not None
        return batch


def read_data(path: Path) -> DataFile:
    """Read the arrays of a `.npz` or `.npy` file; pickled objects, which could run code, are refused.

    Args:
        path: The file.

    Returns:
        Its arrays.

    Raises:
        InputError: If it is damaged or holds something other than numbers.
        ValueError: If it would fill memory.
    """
    check_expansion(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # whatever a damaged file leads to
        if "allow_pickle" in str(error):
            raise InputError(
                f"'{path}' holds pickled Python objects, which could run code. Save plain arrays of numbers: "
                "x = np.stack(list_of_samples); np.savez('data.npz', x=x)."
            ) from error
        raise InputError(f"'{path}' is damaged or no NumPy file: {error}. Save or copy it again.") from error
    others = {name: str(array.dtype) for name, array in arrays.items() if array.dtype.kind not in _NUMBERS}
    if others:
        raise InputError(f"'{path}' holds arrays that are no numbers: {others}. Convert or leave them out.")
    return DataFile(path, arrays)


def _inputs(model: keras.Model | Path) -> Inputs:
    if isinstance(model, Path):
        return file_inputs(model.name, TFLiteModel(model).inputs)
    return inputs_of(model if is_graph(model) else functional(model))
