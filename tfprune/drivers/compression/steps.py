"""Of which phases `compress` is made: pruning, repair and training, once or in geometric steps, then int8."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from tfprune.drivers.batches import num_batches
from tfprune.drivers.compression.choosing import Chooser
from tfprune.drivers.compression.compress_options import CompressOptions
from tfprune.drivers.compression.planning import Int8Files, narrow
from tfprune.drivers.data import Data
from tfprune.drivers.phases import Phase
from tfprune.drivers.runs import Run
from tfprune.drivers.training import Fit
from tfprune.drivers.validation import Validation
from tfprune.quantization import quantize_aware
from tfprune.shrinking.widths import Widths

QUANTIZE = "quantize"
"""The name of the last phase."""


@dataclass(frozen=True)
class Steps:
    """What all phases share.

    Attributes:
        data: What is trained on.
        validation: What is measured on.
        files: To weigh files.
        chooser: Chooses the channels that go, and repairs what stays.
        run: Where it is noted what was chosen.
        teacher: By whose answers all phases learn beside labels; None for labels alone.
        epochs: Of all phases together.
        learning_rate: At which each training after a pruning starts.
        options: What was asked for.
    """

    data: Data
    validation: Validation
    files: Int8Files
    chooser: Chooser
    run: Run
    teacher: keras.Model | None
    epochs: int
    learning_rate: float
    options: CompressOptions

    def phases(self, dense: int, macs: int, limits: dict[str, float]) -> list[Phase]:
        """Return the phases.

        Args:
            dense: Multiply-accumulates of the dense model.
            macs: What is to be left of them.
            limits: The budget, which the last pruning meets.
        """
        last = max(1, round(self.epochs / 6)) if self.options.quantization_aware else 0
        pruning = list(self._pruning(self.epochs - last, dense, macs, limits)) if macs < dense else []
        return [*pruning, self._quantize(last)] if last else pruning

    def _quantize(self, epochs: int) -> Phase:
        rate = self.options.quantize_learning_rate or self.learning_rate / 10
        return Phase(QUANTIZE, quantize_aware, self._fit(epochs, rate), self._facts, self.options.seed)

    def _pruning(self, epochs: int, dense: int, macs: int, limits: dict[str, float]) -> Iterator[Phase]:
        steps = self.options.steps
        each = max(1, epochs // (steps + 2)) if steps > 1 else 0
        for step in range(1, steps):
            yield self._prune(step, round(dense * (macs / dense) ** (step / steps)), each, {})
        yield self._prune(steps, macs, epochs - (steps - 1) * each, limits)

    def _prune(self, step: int, macs: int, epochs: int, limits: dict[str, float]) -> Phase:
        name = f"prune-{step}"
        return Phase(
            name,
            lambda model: self._pruned(name, model, macs, limits),
            self._fit(epochs, self.learning_rate),
            self._facts,
            self.options.seed + step,
            settings={"macs": macs, "limits": limits},
            title=f"{name} to {macs:,} MACs",
        )

    def _pruned(self, name: str, model: keras.Model, macs: int, limits: dict[str, float]) -> keras.Model:
        """A smaller model, repaired. A process that goes on takes the widths of the one before, as files have them."""
        widths = self.run.notes.get(f"{name} widths")
        if widths is None:
            widths = narrow(model, macs, limits, self.files, self.chooser).to_dict()
            self.run.note(**{f"{name} widths": widths})
        small = self.chooser.pruned(model, Widths(widths))
        self._note_score(name, "cut", small)
        if self.options.repair:
            self.run.display.say("    Repairing what is left by least squares")
            self.chooser.repair(small, model)
            self._note_score(name, "repaired", small)
        return small

    def _note_score(self, name: str, when: str, model: keras.Model) -> None:
        if f"{name} {when}" not in self.run.notes:
            self.run.note(**{f"{name} {when}": self.validation.score(model)})

    def _fit(self, epochs: int, rate: float) -> Fit:
        batches = {"batch_size": self.options.batch_size} if isinstance(self.data.training, tuple) else {}
        return Fit(self.data.training, epochs, float(rate), arguments=batches, teacher=self.teacher)

    def _facts(self, model: keras.Model) -> dict[str, float]:
        return {"score": self.validation.score(model)}


def first_rate(model: keras.Model, data: Data, epochs: int, options: CompressOptions) -> float:
    """Return the rate at which each training after a pruning starts."""
    if options.learning_rate is not None:
        return float(options.learning_rate)
    return initial_rate(model, epochs * (num_batches(data.training, options.batch_size) or 0)) / 2


def initial_rate(model: keras.Model, num_steps: int) -> float:
    """Return the learning rate that a model is compiled with; of a schedule, which may have ended, its highest.

    Args:
        model: A compiled model.
        num_steps: How many steps a schedule is looked at, if it has not gone further already.

    Returns:
        The rate.

    Raises:
        ValueError: If it is not above 0.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # a LossScaleOptimizer has one inside
    rate = optimizer.get_config()["learning_rate"]
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        last = max(num_steps, int(optimizer.iterations.numpy()))
        rate = max(float(schedule(int(step))) for step in np.linspace(0, last, 200))
    if not 0 < rate < float("inf"):
        raise ValueError(
            f"The model is compiled with a learning rate of {rate:g}, from which none for fine-tuning follows. "
            "Pass options=tfprune.CompressOptions(learning_rate=1e-3)."
        )
    return float(rate)
