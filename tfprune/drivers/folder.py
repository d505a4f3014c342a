"""The folder in which a run keeps what is done, so that a process that goes on finds it."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from tfprune.common.files import check_writable, write_atomically, writing
from tfprune.drivers.phases import History

_HISTORY = "history.json"


class Folder:
    """Finished phases, the backups of the one that trains, and with which settings they were made.

    Every file is written beside its place and renamed when it is whole, and `state.json` names a phase only when its
    files are there: whatever a kill leaves can be gone on from.

    Args:
        path: The folder; it may not exist yet.
        how_to_restart: How the user asks for a run from the start; stands in messages.
    """

    def __init__(self, path: Path, how_to_restart: str) -> None:
        self.path, self.how_to_restart = path, how_to_restart
        self._state_path = path / "state.json"
        self._state: dict[str, Any] = {}
        self._lock: int | None = None

    @property
    def notes(self) -> dict[str, Any]:
        """What the driver has kept beside the phases. Kept by an earlier process too, also before `open`."""
        state = self._state or (self._read() if self._state_path.exists() else {"notes": {}})
        return dict(state["notes"])

    def open(self, settings: dict[str, Any], restart: bool) -> bool:
        """Make the folder or go on with what is in it, and keep other processes out until `close`.

        Args:
            settings: What all results depend on, as plain values.
            restart: Whether to delete what is there.

        Returns:
            Whether there is something to go on with.

        Raises:
            ValueError: If the folder belongs to a run with other settings, or to something else.
            RuntimeError: If another run works in it.
            OSError: If it cannot be made.
        """
        check_writable(self._state_path)
        self._acquire()
        try:
            return self._open(settings, restart)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others work here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def note(self, **entries: Any) -> None:
        """Keep some plain values."""
        self._update(notes={**self._state["notes"], **entries})

    def begin(self, position: int, name: str, settings: dict[str, Any]) -> None:
        """Note that a phase begins.

        Args:
            position: How many phases come before it.
            name: Its name.
            settings: What it depends on, as plain values.
        """
        self.check(position, name, settings)
        if name not in self._state["phases"]:
            self._update(phases={**self._state["phases"], name: {"settings": settings}})

    def check(self, position: int, name: str, settings: dict[str, Any]) -> None:
        """Raise if an earlier process has begun another phase at this place, or the same with other settings.

        Args:
            position: How many phases come before it.
            name: Its name.
            settings: What it depends on, as plain values.

        Raises:
            ValueError: If that is so.
        """
        names = list(self._state["phases"])
        before = names[position] if position < len(names) else name
        if before != name or name in names[:position]:
            self._refuse(f"phase {position + 1}: {before} then, {name} now")
        if name in names:
            self._check_same(self._state["phases"][name]["settings"], settings, f"{name}: ")

    def finished(self, name: str) -> tuple[dict[str, Any], History] | None:
        """Return facts and history of a phase, or None if it is not finished."""
        found = self._state["phases"][name]
        return (found["facts"], found["history"]) if "facts" in found else None

    def load(self, name: str, model: keras.Model) -> None:
        """Give a model the weights that a phase left."""
        model.load_weights(self._model_path(name))

    def keep(self, name: str, model: keras.Model, history: History) -> None:
        """Keep a trained model: from now on its phase is not trained again, though not finished."""
        write_history(self.backups(name), history)
        beside = self.path / f".{name}.keras"
        try:
            with writing(self._model_path(name)):
                model.save(beside)
                beside.replace(self._model_path(name))
        finally:
            beside.unlink(missing_ok=True)

    def kept(self, name: str, model: keras.Model) -> History | None:
        """Load a trained model of a phase that is not finished, and return its history; None if it is not trained."""
        if not self._model_path(name).exists():
            return None
        self.load(name, model)
        return read_history(self.backups(name))

    def finish(self, name: str, facts: dict[str, Any], history: History) -> None:
        """Keep what is known of a phase, and delete the backups of its training."""
        done = {**self._state["phases"][name], "facts": facts, "history": history}
        self._update(phases={**self._state["phases"], name: done})
        shutil.rmtree(self.backups(name), ignore_errors=True)

    def forget(self, name: str) -> None:
        """Delete the model of a finished phase, of which facts and logs stay."""
        if not self.forgotten(name):
            self._update(phases={**self._state["phases"], name: {**self._state["phases"][name], "forgotten": True}})
        self._model_path(name).unlink(missing_ok=True)

    def forgotten(self, name: str) -> bool:
        """Return whether the model of a phase was deleted."""
        return bool(self._state["phases"][name].get("forgotten"))

    def backups(self, name: str) -> Path:
        """Return where the backups of a phase go."""
        return self.path / f"backup-{name}"

    def _acquire(self) -> None:
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            # The system lets go of it when the process ends, however it ends.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise RuntimeError(
                f"Another run works in {str(self.path)!r}. Wait until it ends, or choose another path."
            ) from None

    def _open(self, settings: dict[str, Any], restart: bool) -> bool:
        if self._state_path.exists() and (restart or self._read()["settings"] is None):
            self._empty()
        elif not self._state_path.exists() and any(path.suffix != ".partial" for path in self.path.iterdir()):
            raise ValueError(f"{str(self.path)!r} is needed to work in, but holds something else. Move it away.")
        for left in self.path.glob(".*.partial"):
            left.unlink()
        settings = plain(settings)
        if self._state_path.exists() and (state := self._read())["settings"] is not None:
            self._state = state
            self._check_same(state["settings"], settings)
            return True
        self._update(settings=settings, phases={}, notes={})
        return False

    def _empty(self) -> None:
        """Delete all but a state without settings, by which the next process knows that it has to go on deleting."""
        self._update(settings=None, phases={}, notes={})
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self._state_path:
                path.unlink()

    def _update(self, **entries: Any) -> None:
        self._check_there()
        state = {**self._state, **entries}
        write_atomically(self._state_path, json.dumps(state, indent=2) + "\n")
        self._state = state

    def _check_there(self) -> None:
        """Raise if the folder was removed, before another one is begun in its place."""
        locked = None if self._lock is None else os.fstat(self._lock)
        if locked is not None and not (self.path.exists() and os.path.samestat(os.stat(self.path), locked)):
            raise _gone(self.path)

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state_path.read_text())
            return {name: state[name] for name in ("settings", "phases", "notes")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(self._state_path)!r} is damaged: {error!r}. To start anew, {self.how_to_restart}, or delete the "
                "folder."
            ) from error

    def _model_path(self, name: str) -> Path:
        return self.path / f"{name}.keras"

    def _check_same(self, before: dict[str, Any], now: dict[str, Any], where: str = "") -> None:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            self._refuse("; ".join(f"{where}{name}: {before.get(name)} then, {now.get(name)} now" for name in names))

    def _refuse(self, changes: str) -> None:
        raise ValueError(
            f"{str(self.path)!r} holds an unfinished or finished call with other arguments ({changes}). Repeat "
            f"those to go on from there. To start anew, {self.how_to_restart}, or delete the folder."
        )


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back, so that they can be compared with those of another process.

    Args:
        values: What JSON has.

    Returns:
        The values.

    Raises:
        TypeError: If there is something else.

    Example:

    >>> plain({"shape": (1, 2)})
    {'shape': [1, 2]}
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(values))
    except TypeError as error:
        raise TypeError(f"Expected numbers, texts, lists and dicts, as JSON has them. Received: {values!r}.") from error
    return found


def write_history(backups: Path, history: History) -> None:
    """Keep the logs of the epochs of a phase that is not finished."""
    if not backups.parent.is_dir():
        raise _gone(backups.parent)
    write_atomically(backups / _HISTORY, json.dumps(history))


def read_history(backups: Path) -> History:
    """Return the logs of the epochs of a phase that is not finished."""
    history: History = json.loads((backups / _HISTORY).read_text())
    return history


def _gone(path: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"The folder {str(path)!r} was removed or replaced while a run worked in it, and what was kept there is gone. "
        "Bring it back and repeat the call, or repeat it to start anew."
    )
