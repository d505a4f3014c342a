"""What `informed_choice.py` has measured: rows of one task, seed, budget and choice."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
WAYS = ("recalibrated", "head", "body", "all")
"""What is done after the choice."""


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Return all rows; new ones take the place of old ones of the same task, seed, budget and choice."""
    key = lambda row: (row["task"], row["seed"], -row["budget"], row["choice"])  # noqa: E731
    return [row for _, row in sorted({key(row): row for row in [*old, *new]}.items())]


def lost(rows: Sequence[Row], budget: float) -> dict[tuple[str, str], float]:
    """Return the points that are lost at a budget by choice and way, as the mean over tasks of the mean over seeds."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row["budget"] == budget:
            for way in WAYS:
                found.setdefault((row["choice"], way), {}).setdefault(row["task"], []).append(row["dense"] - row[way])
    return {key: 100 * float(np.mean([np.mean(each) for each in tasks.values()])) for key, tasks in found.items()}
