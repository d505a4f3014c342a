"""How the scores of one group are made comparable with those of others."""

from collections.abc import Callable

import numpy as np


def _relative_to_mean(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    mean = scores[finite].mean() if finite.any() else 1.0
    return scores / mean if mean > 0 else scores


def _relative_to_largest(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    largest = scores[finite].max() if finite.any() else 1.0
    return scores / largest if largest > 0 else scores


def _lamp(scores: np.ndarray, finite: np.ndarray) -> np.ndarray:
    values = scores[finite]
    if (values < 0).any():
        raise ValueError(
            "normalize='lamp' squares the scores, so they must not be negative. Use another normalization, such as "
            "Ranking('global', normalize='none')."
        )
    values = values / values.max(initial=np.finfo(float).tiny)  # squares neither overflow nor vanish
    ascending = np.sort(values)
    squares_from = np.cumsum(ascending[::-1] ** 2)[::-1]
    at_least = squares_from[np.searchsorted(ascending, values, side="left")] if values.size else values
    relative = scores.copy()
    relative[finite] = np.divide(values**2, at_least, out=np.zeros_like(values), where=at_least > 0)
    return relative


NORMALIZATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": _relative_to_mean,
    "max": _relative_to_largest,
    "lamp": _lamp,
    "none": lambda scores, finite: scores,
}
"""By name, from scores and which of them are finite to relative ones."""
