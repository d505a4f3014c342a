"""From what the user gives `compare` to entries that are loaded, named and fit each other."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfprune.common.names import told_apart
from tfprune.data.models import SUFFIXES, check_model_path, load_model
from tfprune.measure.entries import Entry, FileEntry, KerasEntry
from tfprune.measure.outputs import places_of


def open_entries(models: Any) -> list[Entry]:
    """Return what is to be compared, loaded and named.

    Args:
        models: A dict from name to model or path, or an iterable of models and paths.

    Returns:
        The entries, in the order given.

    Raises:
        TypeError: If something is neither a Keras 3 model nor a path.
        ValueError: If there is nothing, a suffix is unknown, a file is damaged, or the outputs differ.
        FileNotFoundError: If there is no file at a path.
        IsADirectoryError: If a path is a folder.
    """
    if isinstance(models, Mapping):
        named = dict(zip(told_apart(str(name) for name in models), models.values(), strict=True))
    elif isinstance(models, Iterable) and not isinstance(models, str | bytes):
        given = list(models)
        named = dict(zip(told_apart(map(_name, given)), given, strict=True))
    else:
        raise TypeError(
            "compare() takes a list or a dict of Keras models and paths, such as compare([model, 'small.tflite'], "
            f"data). Received: {models!r}."
        )
    if not named:
        raise ValueError("compare() needs at least one model or path. Received none.")
    paths = {name: _checked_path(model) for name, model in named.items() if isinstance(model, str | os.PathLike)}
    entries = [_open(name, paths.get(name, model)) for name, model in named.items()]
    _match_outputs(entries)
    return entries


def _open(name: str, model: Any) -> Entry:
    if not isinstance(model, Path):
        return KerasEntry(name, model)
    return FileEntry(name, model) if model.suffix == ".tflite" else KerasEntry(name, load_model(model))


def _checked_path(given: str | os.PathLike[str]) -> Path:
    path = Path(given)
    if path.suffix in SUFFIXES or path.is_dir():
        return check_model_path(path)
    if path.suffix != ".tflite":
        raise ValueError(f"Expected a path that ends in .keras, .h5 or .tflite. Received: {str(path)!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at {str(path)!r}. Check the path, or save the model first.")
    return path


def _name(model: Any) -> str:
    """Return a model's own name, or its file's."""
    return Path(model).name if isinstance(model, str | os.PathLike) else str(getattr(model, "name", "model"))


def _match_outputs(entries: list[Entry]) -> None:
    """Give all entries the order of outputs that the first one has."""
    first = entries[0]
    for entry in entries[1:]:
        places = places_of(entry.outputs, first.outputs)
        if places is None:
            raise ValueError(
                f"The outputs differ: {first.name!r} gives {_told(first)} for a sample, {entry.name!r} gives "
                f"{_told(entry)}. Compare models of one task, with the same outputs and classes."
            )
        entry.arrange(places)


def _told(entry: Entry) -> str:
    if len(entry.outputs) == 1:
        return str(entry.outputs[0].shape)
    return ", ".join(f"{one.name!r} {one.shape}" for one in entry.outputs)
