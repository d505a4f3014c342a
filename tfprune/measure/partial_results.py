"""Results that are kept on disk as they come, so that work goes on where it was cut off."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfprune.common.files import check_writable, write_atomically


class PartialResults:
    """Results by name in a JSON file, which is written beside its place and renamed after each.

    Args:
        path: The file, or a folder for it; None to keep nothing.
        name: What the file in a folder is called.
        settings: What the results are of; plain values.

    Raises:
        ValueError: If the file there is of other settings, or none of these.
        OSError: If it cannot be written.

    Example:

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/scores.json"
    >>> PartialResults(path, "", {"seed": 0}).add("conv", 0.5)
    >>> PartialResults(path, "", {"seed": 0}).found
    {'conv': 0.5}
    """

    def __init__(self, path: str | os.PathLike[str] | None, name: str, settings: Mapping[str, Any]) -> None:
        self.found: dict[str, Any] = {}
        self._settings = json.loads(json.dumps(dict(settings)))
        self._path: Path | None = None
        if path is not None:
            folder = Path(path).is_dir() or not Path(path).suffix
            self._path = check_writable(Path(path) / name if folder else path, suffix=".json")
            if self._path.exists():
                self.found = self._read(self._path)

    def add(self, name: str, result: Any) -> None:
        """Keep one more result.

        Args:
            name: What it is of.
            result: Plain values.
        """
        self.found[name] = result
        if self._path is not None:
            write_atomically(self._path, json.dumps({"settings": self._settings, "results": self.found}, indent=1))

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text())
            settings, results = content["settings"], dict(content["results"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(path)!r} holds something else than results that were kept. Choose another path for storage."
            ) from error
        names = dict.fromkeys([*settings, *self._settings])
        differ = [name for name in names if settings.get(name) != self._settings.get(name)]
        if differ:
            both = "; ".join(
                f"{name}: {settings.get(name)!r} there, {self._settings.get(name)!r} now" for name in differ
            )
            raise ValueError(
                f"{str(path)!r} holds results of something else. {both}. Choose another path for storage, or delete it."
            )
        return results
