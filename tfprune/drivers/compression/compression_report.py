"""What `compress` did, and what came out."""

from dataclasses import dataclass

from rich.table import Table

from tfprune.common.tables import Report, new_table
from tfprune.exporting.export_report import ExportReport
from tfprune.measure import Comparison


@dataclass(frozen=True)
class PhaseReport:
    """The model after one phase.

    Attributes:
        name: `"dense"`, `"prune-1"` and so on, `"quantize"`.
        epochs: Epochs of training.
        learning_rate: Where the learning rate started, to fall to zero along a cosine.
        parameters: Weights.
        macs: Multiply-accumulate operations for one sample.
        score: What validation gave.
        cut: Of a pruning, what it gave when channels were removed and nothing else was done; None of others.
        repaired: What it gave after the repair, before any training; None where nothing was repaired.
    """

    name: str
    epochs: int
    learning_rate: float
    parameters: int
    macs: int
    score: float
    cut: float | None = None
    repaired: float | None = None


@dataclass(frozen=True)
class BudgetLine:
    """One limit of the budget, and what was reached.

    Attributes:
        name: `"parameters"`, `"macs"`, `"weight_bytes"`, `"file_bytes"` or `"latency"`.
        limit: The limit as an absolute number; of latency, as a fraction of the dense int8 file's.
        reached: The same of the result. A latency is measured anew, and differs from run to run.
        met: Whether it is within the limit.
    """

    name: str
    limit: float
    reached: float
    met: bool


@dataclass(frozen=True)
class CompressionReport(Report):
    """What `compress` did, and what came out.

    Attributes:
        path: The int8 file.
        folder: Where the model of each phase is kept, as `.keras`.
        phases: The dense model, and the model after each phase.
        budget: One line for each limit.
        validation: What was measured on.
        drop: By how much the score fell from the dense model to the file; below 0 if it rose.
        max_drop: By how much it was allowed to fall; None if nothing was said.
        comparison: The dense and the pruned model in float, and the file, on the validation data.
        export: What was written, and how close the file is to the model.
    """

    path: str
    folder: str
    phases: tuple[PhaseReport, ...]
    budget: tuple[BudgetLine, ...]
    validation: str
    drop: float
    max_drop: float | None
    comparison: Comparison
    export: ExportReport

    @property
    def budget_met(self) -> bool:
        """Whether the result is within all limits."""
        return all(line.met for line in self.budget)

    @property
    def drop_allowed(self) -> bool:
        """Whether the score fell by no more than `max_drop`."""
        return self.max_drop is None or self.drop <= self.max_drop

    def to_table(self) -> Table:
        """Return one row per phase, with what each part of it gained; below it, whether the budget is met."""
        metric = self.comparison.metric
        table = new_table(
            f"Compressed: {self.path}",
            ["phase"],
            ["params", "MACs", "removed", "repaired", "epochs", "from rate", metric],
        )
        for phase in self.phases:
            untrained = ["" if score is None else _score(score, metric) for score in (phase.cut, phase.repaired)]
            trained = [str(phase.epochs), f"{phase.learning_rate:.2g}"] if phase.epochs else ["", ""]
            sizes = [f"{phase.parameters:,}", f"{phase.macs:,}"]
            table.add_row(phase.name, *sizes, *untrained, *trained, _score(phase.score, metric))
        table.caption_justify = "left"
        table.caption = "\n".join([*(_line(line) for line in self.budget), self._drop(), f"On {self.validation}."])
        return table

    def tables(self) -> list[Table]:
        """Return the phases, and below them the comparison."""
        return [*super().tables(), *self.comparison.tables()]

    def _drop(self) -> str:
        metric = self.comparison.metric
        size = abs(self.drop)
        fallen = f"{100 * size:.2f} pp" if metric == "accuracy" else f"{size:.4g}"
        text = f"{metric} {'rose' if self.drop < 0 else 'fell'} by {fallen} from the dense model to the file"
        if self.max_drop is None:
            return f"{text}."
        return f"{text}: {'within' if self.drop_allowed else 'MORE THAN'} max_drop={self.max_drop:g}."


def _line(line: BudgetLine) -> str:
    state = "met" if line.met else "NOT MET"
    if line.name == "latency":
        return f"Budget {state}: latency x {line.reached:.2f} of {line.limit:.2f} times the dense int8 file's."
    return f"Budget {state}: {line.name} {line.reached:,.0f} of {line.limit:,.0f}."


def _score(value: float, metric: str) -> str:
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"
