"""The numbers of a training, from wherever they are kept."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from tfprune.common.names import told_apart

Curves: TypeAlias = dict[str, tuple[float, ...]]
"""The values over the epochs, by their names in the logs."""


def read_history(history: Any) -> Curves:
    """Return the values over the epochs.

    Args:
        history: None, what `fit` returned, its `history` dict, or the path of a `.csv` file that `CSVLogger` wrote or
            of a `.json` file that holds the dict.

    Returns:
        The values by name; those that are missing or no numbers are NaN.

    Raises:
        TypeError: If it is something else.
        FileNotFoundError: If there is no file at the path.
        ValueError: If the file is of another kind, or a name does not stand for a list of numbers.

    Example:

    >>> read_history({"loss": [0.5, 0.25]})
    {'loss': (0.5, 0.25)}
    """
    if history is None:
        return {}
    if isinstance(history, str | os.PathLike):
        return _checked(_read(Path(history)), f"{str(history)!r}")
    if isinstance(history, keras.callbacks.History):
        history = history.history
    if not isinstance(history, Mapping):
        raise TypeError(
            "history is what fit() returns, its .history dict, or the path of a .csv or .json file. "
            f"Received: {history!r}."
        )
    return _checked(history, "history")


def printable(name: str) -> str:
    """Return a name without control characters, which a picture cannot hold.

    Args:
        name: The name.

    Returns:
        The name, with another character in place of each.
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)


def _read(path: Path) -> Any:
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"The path of a history must end in .csv (CSVLogger) or .json. Received: {str(path)!r}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file at {str(path)!r}. Check the path of the history.")
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else _columns(text)
    except ValueError as error:  # also what is no text
        raise ValueError(f"{str(path)!r} is no history: it cannot be read as {path.suffix[1:]}: {error}.") from error


def _columns(text: str) -> dict[str, list[float]]:
    """Return what CSVLogger has written, without the number of the epoch; "NA" stands for what is missing."""
    rows = csv.DictReader(text.splitlines(), restval="")
    columns: dict[str, list[float]] = {name: [] for name in rows.fieldnames or () if name != "epoch"}
    for row in rows:
        for name, column in columns.items():
            column.append(math.nan if row[name] in ("", "NA") else float(row[name]))
    # CSVLogger also makes a column for each value of a validation that there was not.
    return {name: column for name, column in columns.items() if not all(math.isnan(value) for value in column)}


def _checked(curves: Any, where: str) -> Curves:
    if not isinstance(curves, Mapping) or not curves:
        raise ValueError(f"Expected lists of numbers by name in {where}, such as {{'loss': [0.5, 0.4]}}.")
    for name, values in curves.items():
        if _is_number(values):
            raise ValueError(
                f"Expected a list of numbers for {name!r} in {where}, one for each epoch: [{values}]. "
                f"Received one number: {values}."
            )
        if not isinstance(values, Sequence | np.ndarray) or not all(_is_number(value) for value in values):
            raise ValueError(f"Expected a list of numbers for {name!r} in {where}. Received: {values!r}.")
    numbers = [tuple(_float(value) for value in values) for values in curves.values()]
    names = told_apart(printable(str(name)) for name in curves)
    return {name: values for name, values in zip(names, numbers, strict=True) if values}


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
