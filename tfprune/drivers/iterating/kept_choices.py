"""What each round has left, kept in files: a run that goes on takes it from there."""

import io
from pathlib import Path

import numpy as np

from tfprune.common.files import write_atomically
from tfprune.drivers.iterating.pruners import Choice


class KeptChoices:
    """The choices of all rounds, one small file each.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> Choice | None:
        """Return what a round has left; None if nothing was chosen yet."""
        path = self._path(name)
        if not path.exists():
            return None
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def keep(self, name: str, choice: Choice) -> None:
        """Keep what a round has left."""
        content = io.BytesIO()
        np.savez_compressed(content, **choice)  # type: ignore[arg-type]  # the names of arrays
        write_atomically(self._path(name), content.getvalue())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"
