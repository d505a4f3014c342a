"""Samples and labels from files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfprune_cli.errors import InputError

_NUMBERS = "biufV"  # V: types that NumPy does not know by itself, such as bfloat16


@dataclass(frozen=True)
class DataFile:
    """The arrays of a `.npz` or `.npy` file; the one of a `.npy` file is called `x`."""

    path: Path
    arrays: dict[str, np.ndarray]

    def inputs(self, names: list[str]) -> np.ndarray | dict[str, np.ndarray]:
        """Return what goes into a model with these inputs.

        Args:
            names: Names of the model's inputs.

        Returns:
            An array for one input, a dict by name for several.

        Raises:
            InputError: If the file has no such arrays, or they differ in their number of samples.
        """
        if set(names) <= set(self.arrays):
            found = {name: self.arrays[name] for name in names}
        elif len(names) == 1 and "x" in self.arrays:
            found = {names[0]: self.arrays["x"]}
        else:
            wanted = " and ".join(repr(name) for name in names)
            raise InputError(
                f"'{self.path}' has the arrays {list(self.arrays)}; the model takes {wanted}. Save one array for each "
                f"input by its name{', or one called x' if len(names) == 1 else ''}: np.savez('{self.path.name}', ...)."
            )
        counts = {name: len(array) if array.ndim else 0 for name, array in found.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"The inputs in '{self.path}' differ in their number of samples: {counts}.")
        return found if len(names) > 1 else found[names[0]]

    def labelled(self, names: list[str]) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray]:
        """Return inputs as `inputs` does, and the labels `y`; raise InputError if there are none."""
        if "y" not in self.arrays:
            raise InputError(
                f"'{self.path}' has the arrays {list(self.arrays)}, and no labels: accuracy needs an array y. "
                "Save both: np.savez('data.npz', x=x, y=y)."
            )
        return self.inputs(names), self.arrays["y"]


def read_data(path: Path) -> DataFile:
    """Read the arrays of a `.npz` or `.npy` file; pickled objects, which could run code, are refused.

    Args:
        path: The file.

    Returns:
        Its arrays.

    Raises:
        InputError: If it is damaged or holds something other than numbers.
    """
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
