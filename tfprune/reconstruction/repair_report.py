"""What a reconstruction did, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from tfprune.common.tables import Report, new_table


@dataclass(frozen=True)
class RefittedLayer:
    """A layer that was refitted.

    Attributes:
        name: The names of the layers that lead to it.
        positions: How many positions, of all samples together, it was fitted on.
        unknowns: How many numbers each output was fitted with.
        error_before: What was missing of the larger model's output, as a share of its variance, before the fit.
        error_after: The same after it.
        shortcut: Whether it also makes up for what the other inputs of the addition behind it lack.
    """

    name: str
    positions: int
    unknowns: int
    error_before: float
    error_after: float
    shortcut: bool = False


@dataclass(frozen=True)
class ReconstructionReport(Report):
    """What `reconstruct` did.

    Attributes:
        model: The name of the model.
        refitted: The layers that were refitted, in the order of the data.
        left: The layers with weights that were left as they are, with the reason.
    """

    model: str
    refitted: tuple[RefittedLayer, ...]
    left: Mapping[str, str]

    def to_table(self) -> Table:
        """Return one row per layer."""
        title = f"Reconstruction of {self.model}: {len(self.refitted)} layers refitted, {len(self.left)} left"
        numbers = ["positions", "unknowns", "error before", "error after"]
        table = new_table(title, ["layer", "note"], numbers)
        for layer in self.refitted:
            note = "with the shortcut" if layer.shortcut else "-"
            errors = [f"{error:.2%}" for error in (layer.error_before, layer.error_after)]
            table.add_row(layer.name, note, f"{layer.positions:,}", f"{layer.unknowns:,}", *errors)
        for name, reason in self.left.items():
            table.add_row(name, f"left: {reason}", "", "", "", "")
        return table
