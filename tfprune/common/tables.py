"""What every report shares: it prints as a table, and it saves as JSON."""

import dataclasses
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tfprune.common.files import write_atomically


class Report(ABC):
    """Base of the frozen dataclasses that tfprune returns: `print` shows a table, `save` writes JSON."""

    @abstractmethod
    def to_table(self) -> Table:
        """Return the report as a `rich.table.Table`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain Python values, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON to `path`, and return the path."""
        return write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")

    def __str__(self) -> str:
        console = Console(width=120, no_color=True, highlight=False)
        with console.capture() as capture:
            console.print(self.to_table())
        return capture.get().rstrip()


def new_table(title: str, text_columns: list[str], number_columns: list[str]) -> Table:
    """Return an empty table in the one style that tfprune prints: text to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in text_columns:
        table.add_column(name, overflow="fold")
    for name in number_columns:
        table.add_column(name, justify="right")
    return table
