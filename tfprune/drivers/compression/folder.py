"""The folder in which `compress` keeps what is done, so that a call that was cut off can go on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from tfprune.common.files import check_writable, write_atomically

_HOW_TO_START_ANEW = "To start anew, pass options=tfprune.CompressOptions(restart=True), or delete the folder"


class Folder:
    """The finished phases of a call, and with which settings they were made.

    Args:
        path: The folder; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state_path = path / "state.json"
        self.state: dict[str, Any] = {}

    def open(self, settings: dict[str, Any], restart: bool) -> bool:
        """Make the folder, or go on with what is in it.

        Args:
            settings: What all results depend on, as plain values.
            restart: Whether to delete what is there.

        Returns:
            Whether there is something to go on with.

        Raises:
            ValueError: If the folder belongs to a call with other settings, or to something else.
        """
        if restart and self._state_path.exists():
            shutil.rmtree(self.path)
        if self.path.exists() and not self._state_path.exists() and any(self._foreign()):
            raise ValueError(f"{str(self.path)!r} is needed to work in, but holds something else. Move it away.")
        settings = json.loads(json.dumps(settings))  # as it will be read
        if self._state_path.exists():
            self.state = self._read()
            _check_same(self.state["settings"], settings, self.path)
            return True
        check_writable(self._state_path)
        self.update(settings=settings, phases={})
        return False

    def update(self, **entries: Any) -> None:
        """Keep some entries of the state."""
        self.state.update(entries)
        write_atomically(self._state_path, json.dumps(self.state, indent=2) + "\n")

    def has_written(self, digest: str) -> bool:
        """Return whether this folder's call has written a file with this hash, where the folder was not opened yet."""
        return self._state_path.exists() and self._read().get("written") == digest

    def finished(self, name: str) -> dict[str, Any] | None:
        """Return what is known of a phase, or None if it is not finished."""
        found: dict[str, Any] | None = self.state["phases"].get(name)
        return found

    def load(self, name: str, model: keras.Model) -> None:
        """Give a model the weights that a finished phase left."""
        model.load_weights(self._model_path(name))

    def finish(self, name: str, model: keras.Model, facts: dict[str, Any]) -> None:
        """Keep a model and what is known of it, and delete the backups of its training."""
        beside = self.path / f"partial-{name}.keras"
        model.save(beside)
        beside.replace(self._model_path(name))
        self.update(phases={**self.state["phases"], name: facts})
        shutil.rmtree(self.backups(name), ignore_errors=True)

    def backups(self, name: str) -> Path:
        """Return where the backups of a phase go."""
        return self.path / f"backup-{name}"

    def _foreign(self) -> Iterator[Path]:
        """What is not left of writing the state for the first time."""
        return (path for path in self.path.iterdir() if path.suffix != ".partial")

    def _model_path(self, name: str) -> Path:
        return self.path / f"{name}.keras"

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_path.read_text())
            return {"settings": state["settings"], "phases": state["phases"], **state}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(self._state_path)!r} is damaged: {error!r}. {_HOW_TO_START_ANEW}.") from error


def _check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        changes = "; ".join(f"{name}: {before.get(name)} then, {now.get(name)} now" for name in names)
        raise ValueError(
            f"{str(path)!r} holds an unfinished or finished call with other arguments ({changes}). Repeat those to go "
            f"on from there. {_HOW_TO_START_ANEW}."
        )
