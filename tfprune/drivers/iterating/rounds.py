"""One round: where its training begins and ends, and how it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import numpy as np

from tfprune.drivers.phases import Desk, History, Training
from tfprune.drivers.randomness import draw_seed, seed_everything
from tfprune.training.masks import HeldMasks, Masks, record_masks, variables_by_path


@dataclass(frozen=True)
class Round:
    """What a training function of the user's own is told.

    Attributes:
        number: How often the model was pruned; 0 for the dense training.
        start: Before which step or epoch, of those that the policy counts, training begins; 0 for its beginning, None
            to go on behind the end of the round before.
        stop: Before which it ends; None for its end.
        seed: For what the function draws; random seeds are set from it already.
        masks: Which weights live, by variable path: False where a weight is pruned and has to stay zero.

    Example:

    >>> Round(number=1, start=0).stop is None
    True
    """

    number: int
    start: int | None
    stop: int | None = None
    seed: int = 0
    masks: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


TrainFunction: TypeAlias = Callable[[keras.Model, Round], object]


@dataclass(frozen=True)
class Loop(Training):
    """Training by a function of the user's own. Where it is cut off it is called again.

    Pruned weights get no step of the model's optimizer. A function that moves them otherwise is refused when it is
    done.

    Attributes:
        function: Trains a model in place.
        round: What it is told; the masks are added.
        held: The masks for a model.
    """

    function: TrainFunction
    round: Round
    held: Callable[[keras.Model], Masks]
    epochs: int = field(default=0, init=False)

    def settings(self) -> dict[str, Any]:
        """Return nothing: what a function does cannot be compared."""
        return {}

    def start(self, model: keras.Model) -> None:
        """Leave the model as the round has prepared it."""

    def train(self, model: keras.Model, desk: Desk) -> History:
        """Call the function, with masks held."""
        masks, optimizer = self.held(model), getattr(model, "optimizer", None)
        told = Round(self.round.number, self.round.start, self.round.stop, desk.seed, masks)
        seed_everything(draw_seed(desk.seed, self.round.number), model)
        hook = HeldMasks(model, masks) if masks and model.compiled else None
        try:
            self.function(model, told)
        finally:
            if hook is not None:
                hook.detach()
        if getattr(model, "optimizer", None) is not optimizer:
            raise ValueError(
                "The function `train` compiled the model anew, which loses what the optimizer remembers. Use the "
                "optimizer that model.optimizer holds, or one of your own without model.compile."
            )
        _check_held(model, masks)
        record_masks(model, masks)
        return []


def _check_held(model: keras.Model, masks: Masks) -> None:
    variables = variables_by_path(model)
    moved = {path: int((variables[path].numpy()[~mask] != 0).sum()) for path, mask in masks.items()}
    if any(moved.values()):
        found = {path: count for path, count in moved.items() if count}
        raise ValueError(
            f"The function `train` moved pruned weights: {found}. Train with model.optimizer, which leaves them, or "
            "call tfprune.masking.apply_masks(model, round.masks) after every step."
        )
