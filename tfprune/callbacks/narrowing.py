"""What a callback does where training goes on in a smaller model, as `tfprune.fit_narrowing` makes it."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

Kept = Mapping[int, tuple[np.ndarray, ...]]
"""For each variable of the larger model (by id), the positions that the smaller one has on each of its axes."""

T = TypeVar("T")


class Narrowable:
    """A callback that can go on in a smaller model.

    Between two epochs it is told to `pause`, then what stays (`narrow`). Then its model is the smaller one, and
    `on_train_begin` comes again. What it counts, it counts from the dense model: see `take_over`.
    """

    _narrowed = False

    def why_not_narrower(self) -> str:
        """Return why training cannot go on in smaller models; nothing if it can."""
        return ""

    def pause(self) -> None:
        """Let the model go: training goes on in another one. Nothing of what ends a training is done."""

    def narrow(self, kept: Kept) -> None:
        """Hear what stays, before `on_train_begin` comes again.

        Args:
            kept: The positions that stay, of all variables.
        """
        self._narrowed = True

    def settle(self) -> None:
        """Hear that training has begun in the smaller model, or that no more of it comes."""
        self._narrowed = False

    def take_over(self, earlier: T, found: T) -> T:
        """Return what was found when training began, if it goes on now in a smaller model; else what is found now."""
        return earlier if self._narrowed else found
