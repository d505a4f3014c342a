"""The residual blocks of a model as a table."""

from dataclasses import dataclass

from rich.table import Table

from tfprune.common.tables import Report, new_table


@dataclass(frozen=True)
class ResidualBlock:
    """One row of `ResidualBlocks`.

    Attributes:
        name: The name of the addition at the end of the block.
        layers: The names of the layers in its branch that have weights.
        num_parameters: How many weights they have.
        stays: Why it cannot be left out; empty if it can.
        score: How important it is; None where that was not asked, or it stays anyway.
    """

    name: str
    layers: tuple[str, ...]
    num_parameters: int
    stays: str = ""
    score: float | None = None


@dataclass(frozen=True)
class ResidualBlocks(Report):
    """The residual blocks of a model, in the order in which data flows; printed as a table.

    Attributes:
        model: The name of the model.
        blocks: The blocks.
        criterion: What the scores are; empty if there are none.
    """

    model: str
    blocks: tuple[ResidualBlock, ...]
    criterion: str = ""

    def to_table(self) -> Table:
        """Return one row per block."""
        free = sum(not block.stays for block in self.blocks)
        title = f"Residual blocks of {self.model}: {free} of {len(self.blocks)} can go"
        table = new_table(title, ["block", "from", "to", "stays because"], ["params", self.criterion or "score"])
        for block in self.blocks:
            score = "-" if block.score is None else f"{block.score:.4g}"
            ends = (block.layers[0], block.layers[-1]) if block.layers else ("", "")
            table.add_row(block.name, *ends, block.stays or "-", f"{block.num_parameters:,}", score)
        return table
