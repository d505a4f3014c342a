"""What `informed_choice.py` has measured: rows of one task, seed, budget and choice."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
WAYS = ("recalibrated", "head", "body", "all")
"""What is done after the choice."""


def merged(old: Sequence[Row], new: Sequence[Row], by: str = "choice") -> list[Row]:
    """Return all rows; new ones replace old ones of the same task, seed, budget and choice, or what `by` is."""
    key = lambda row: (row["task"], row["seed"], -row["budget"], row[by])  # noqa: E731
    return [row for _, row in sorted({key(row): row for row in [*old, *new]}.items())]


def lost(rows: Sequence[Row], budget: float) -> dict[tuple[str, str], float]:
    """Return the points that are lost at a budget by choice and way, as the mean over tasks of the mean over seeds."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row["budget"] == budget:
            for way in WAYS:
                found.setdefault((row["choice"], way), {}).setdefault(row["task"], []).append(row["dense"] - row[way])
    return {key: mean_points(tasks) for key, tasks in found.items()}


def mean_points(tasks: Mapping[str, Sequence[float]]) -> float:
    """Return the mean over tasks of the mean over seeds, in points."""
    return 100 * float(np.mean([np.mean(each) for each in tasks.values()]))
