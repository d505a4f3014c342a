"""The rarer wishes to `iterate`."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from tfprune.measure.scores import Metric


@dataclass(frozen=True)
class IterateOptions:
    """The rarer wishes to `iterate`.

    Attributes:
        path: A folder in which what is done is kept, so that the same call goes on where it was cut off. None for
            one that is deleted at the end.
        validation: What is measured on, never trained: like `data`. None to set aside a tenth of arrays.
        metric: What validation measures, higher is better: None for top-1 accuracy; otherwise a
            `keras.metrics.Metric`, or a function of `y_true` and `y_pred` that returns a number.
        fit: More arguments of `fit`: `batch_size`, `validation_data`, `class_weight` and so on.
        callbacks: Makes callbacks for the `fit` of each round.
        seed: Makes the order of arrays, their split and what is drawn repeatable.
        restart: Whether to delete what an earlier call left at `path`, instead of going on from there.
        progress: Whether to say on stderr how far the work is.

    Example:

    >>> IterateOptions(path="rounds", fit={"batch_size": 60}).seed
    0
    """

    path: str | os.PathLike[str] | None = None
    validation: Any = None
    metric: Metric | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Callable[[], Sequence[keras.callbacks.Callback]] = tuple
    seed: int = 0
    restart: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be a whole number from 0 to 2**31 - 1. Received: {self.seed!r}.")
        if not callable(self.callbacks):
            raise TypeError(
                f"callbacks must be a function that makes a list of callbacks, new ones for each round. "
                f"Received: {self.callbacks!r}."
            )
