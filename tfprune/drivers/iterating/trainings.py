"""How each phase trains: from where to where, by `fit` or by a function of the user's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from tfprune.common.checks import check_count
from tfprune.drivers.batches import num_batches
from tfprune.drivers.iterating.iterate_options import IterateOptions
from tfprune.drivers.iterating.optimizers import last_rate
from tfprune.drivers.iterating.policies import FineTune, InitialWeightsAtEnd, Policy
from tfprune.drivers.iterating.pruners import Pruner
from tfprune.drivers.iterating.rounds import Loop, Round, TrainFunction
from tfprune.drivers.phases import Training
from tfprune.drivers.training import Fit
from tfprune.training.masks import Masks

Held = Callable[[keras.Model], Masks]


@dataclass(frozen=True)
class Trainings:
    """The trainings of all phases.

    Attributes:
        data: What is trained on.
        train: How many epochs, or a function.
        policy: Where a round begins.
        pruner: Holds masks.
        options: Arguments of `fit`, and callbacks.
    """

    data: Any
    train: int | TrainFunction
    policy: Policy
    pruner: Pruner
    options: IterateOptions

    def check(self, model: keras.Model) -> None:
        """Raise if a training cannot be done, before work begins.

        Args:
            model: The user's model.

        Raises:
            ValueError: If the point of rewinding is never reached, or nothing can be trained.
        """
        epochs = getattr(self.policy, "epochs", None)
        rate = getattr(self.policy, "learning_rate", None)
        if not isinstance(self.train, int):
            if not callable(self.train):
                raise TypeError(f"train must be a number of epochs, or a function. Received: {self.train!r}.")
            if epochs is not None or rate is not None:
                raise ValueError(
                    f"{self.policy} is for `fit`. A function `train(model, round)` decides itself how long it trains, "
                    "and at which rate: round.number is above 0."
                )
            return
        check_count("train", self.train)
        self._fit(self.train)  # refuses arguments of fit
        total, point = self.train * self._per_epoch(), self._point()
        if point >= total:
            unit = "step" if self.policy.counts_steps else "epoch"
            raise ValueError(
                f"{self.policy} goes back to a state that is never saved: the training has {self.train} epochs, "
                f"{total} steps. Name an earlier {unit}."
            )
        self.dense()  # refuses a point within an epoch where that cannot be
        if self.policy.goes_on and rate is None and last_rate(model, total) <= 0:
            raise ValueError(
                f"The schedule of the learning rate ends at {last_rate(model, total):g}, at which nothing is trained "
                "after a pruning. Pass rewind=tfprune.FineTune(learning_rate=...), or repeat the schedule with "
                "tfprune.RewindLearningRate(epoch=0)."
            )

    @property
    def epochs(self) -> int:
        """How many epochs the dense training has; 0 where a function trains."""
        return self.train if isinstance(self.train, int) else 0

    def before_point(self) -> Training:
        """Return the training to the point of rewinding."""
        if not isinstance(self.train, int):
            return self._loop(Round(0, 0, self.policy.point))
        return self._fit(self.train, last_step=self._point())

    def dense(self) -> Training:
        """Return the dense training from there to its end."""
        if not isinstance(self.train, int):
            return self._loop(Round(0, self.policy.point))
        return self._fit(self.train, first_step=self._point())

    def round(self, number: int, held: Held) -> Training:
        """Return the training after a pruning.

        Args:
            number: Of the round, from 1.
            held: The masks.
        """
        if not isinstance(self.train, int):
            return self._loop(Round(number, None if self.policy.goes_on else self.policy.point), held)
        if not self.policy.goes_on:
            return self._fit(self.train, first_step=self._point(), holds=True)
        each = self.epochs_of_round()
        begin = self.train + (number - 1) * each
        return self._fit(begin + each, first_step=begin * self._per_epoch(), holds=True)

    def again(self, number: int, held: Held) -> Training:
        """Return the whole training of what is left.

        Args:
            number: How often it was pruned.
            held: The masks.
        """
        if not isinstance(self.train, int):
            return self._loop(Round(number, 0), held)
        return self._fit(self.train, holds=True)

    def epochs_of_round(self) -> int:
        """Return how many epochs a round trains; 0 where a function does."""
        own = self.policy.epochs if isinstance(self.policy, FineTune | InitialWeightsAtEnd) else None
        return own or self.epochs

    def _point(self) -> int:
        """Before which step the state is saved."""
        return self.policy.point if self.policy.counts_steps else self.policy.point * self._per_epoch()

    def _per_epoch(self) -> int:
        batch_size = int(self.options.fit.get("batch_size") or 32)
        found = self.options.fit.get("steps_per_epoch") or num_batches(self.data, batch_size)
        assert found is not None  # of data that was checked
        return int(found)

    def _fit(self, epochs: int, first_step: int = 0, last_step: int | None = None, holds: bool = False) -> Fit:
        def callbacks() -> list[keras.callbacks.Callback]:
            return [*(self.pruner.callbacks() if holds else []), *self.options.callbacks()]

        return Fit(
            self.data,
            epochs,
            callbacks=callbacks,
            arguments=self.options.fit,
            first_step=first_step,
            last_step=last_step,
        )

    def _loop(self, told: Round, held: Held | None = None) -> Loop:
        assert not isinstance(self.train, int)
        return Loop(self.train, told, held or (lambda model: {}))
