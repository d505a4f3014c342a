"""What `iterate` did, round by round, and what came out."""

from dataclasses import dataclass

import keras
from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.drivers.iterating.ticket import Ticket


@dataclass(frozen=True)
class RoundReport:
    """The model after one round.

    Attributes:
        name: `"round-0"` for the dense training, `"round-1"` and so on, `"ticket"` where weights come back at the end.
        left: Weights or channels that are left.
        density: The fraction that is left.
        parameters: Weights of the model, zeros among them.
        epochs: Epochs of `fit`; 0 of a function.
        score: What validation gave; None without validation data.
        accepted: Whether the score is within `max_loss_factor`.
    """

    name: str
    left: int
    density: float
    parameters: int
    epochs: int
    score: float | None
    accepted: bool


@dataclass(frozen=True)
class IterationReport(Report):
    """What `iterate` did, round by round.

    Attributes:
        unit: What is pruned: `"weights"` or `"channels"`.
        metric: What validation measured; empty without validation data.
        rounds: The dense training, and each round.
        returned: The name of the round whose model is returned.
        stopped: Which rule ended the rounds.
    """

    unit: str
    metric: str
    rounds: tuple[RoundReport, ...]
    returned: str
    stopped: str

    def to_table(self) -> Table:
        """Return one row per round; below it, why rounds ended."""
        table = new_table(
            "Rounds", ["round"], [f"{self.unit} left", "density", "params", "epochs", self.metric or "score"]
        )
        for each in self.rounds:
            score = "" if each.score is None else f"{each.score:.4g}"
            mark = " (returned)" if each.name == self.returned else ""
            numbers = [f"{each.left:,}", f"{each.density:.2%}", f"{each.parameters:,}", str(each.epochs or "")]
            table.add_row(f"{each.name}{mark}", *numbers, score)
        table.caption_justify = "left"
        table.caption = f"Ended: {self.stopped}."
        return table


@dataclass(frozen=True)
class Iteration:
    """What `iterate` returns.

    Attributes:
        model: The trained model of the last round, or of the last good one; of channels a smaller, plain Keras model.
        ticket: Its mask, and the weights that a round begins with.
        tickets: The ticket of every round, by name: the dense one is `"round-0"`.
        report: What was done. Print it for a table.
    """

    model: keras.Model
    ticket: Ticket
    tickets: dict[str, Ticket]
    report: IterationReport
