"""What each round has left, kept in files: a run that goes on takes it from there."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.common.files import write_atomically
from tfprune.drivers.iterating.pruners import Choice


class KeptChoices:
    """The choices of all rounds, one small file each.

    Args:
        folder: Where they go.
        names: Of the kernels or groups, in their order: what files hold has numbers, as Keras counts names up.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder, self._names = folder, list(names)

    def find(self, name: str) -> Choice | None:
        """Return what a round has left; None if nothing was chosen yet."""
        path = self._path(name)
        if not path.exists():
            return None
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[f"left_{number}"] for number, name in enumerate(self._names)}

    def keep(self, name: str, choice: Choice) -> None:
        """Keep what a round has left."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {f"left_{number}": choice[name] for number, name in enumerate(self._names)}
        np.savez_compressed(content, **arrays)
        write_atomically(self._path(name), content.getvalue())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"
