"""What every report shares: it prints and shows as a table, and saves as JSON, CSV, Markdown or LaTeX."""

import csv
import dataclasses
import html
import importlib
import io
import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tfprune.common.files import write_atomically

WIDTH = 120  # of tables where there is no terminal
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


class Report(ABC):
    """Base of the frozen dataclasses that tfprune returns.

    `print` shows a table that fits the terminal, a notebook shows it as HTML, `save` writes a file, and `to_csv`,
    `to_markdown`, `to_latex` and `to_pandas` return the table in other forms.
    """

    @abstractmethod
    def to_table(self) -> Table:
        """Return the report as a `rich.table.Table`."""

    def tables(self) -> list[Table]:
        """Return all tables that are printed, `to_table()` first."""
        return [self.to_table()]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain Python values, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def to_csv(self) -> str:
        """Return the rows of `to_table()` as comma-separated values, with numbers that spreadsheets read."""
        return as_csv(self.to_table())

    def to_markdown(self) -> str:
        """Return the rows of `to_table()` as a Markdown table."""
        return as_markdown(self.to_table())

    def to_latex(self) -> str:
        r"""Return the rows of `to_table()` as a LaTeX `tabular`; the document needs `\usepackage{booktabs}`."""
        return as_latex(self.to_table())

    def to_pandas(self) -> Any:
        """Return the rows of `to_table()` as a `pandas.DataFrame`.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas, which is not installed: `pip install pandas`.") from error
        return pandas.read_csv(io.StringIO(self.to_csv()), keep_default_na=False, na_values=[""])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report to `path`, and return the path: JSON, or by its ending the table as .csv, .md or .tex."""
        forms = {".csv": self.to_csv, ".md": self.to_markdown, ".tex": self.to_latex}
        form = forms.get(Path(path).suffix, lambda: json.dumps(self.to_dict(), indent=2) + "\n")
        return write_atomically(path, form())

    def __str__(self) -> str:
        return "\n\n".join(as_text(table) for table in self.tables())

    def _repr_html_(self) -> str:
        return "\n".join(as_html(table) for table in self.tables())


def new_table(title: str, text_columns: list[str], number_columns: list[str]) -> Table:
    """Return an empty table in the one style that tfprune prints: text to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in text_columns:
        table.add_column(name, overflow="fold")
    for name in number_columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def as_text(table: Table, width: int | None = None) -> str:
    """Return a table as plain text, without colours and other escape codes.

    Args:
        table: The table.
        width: Characters in a line; None for the terminal's, or 120 where there is none. Cells that are longer go on in
            the next line; nothing is left out.

    Returns:
        The lines.

    Example:

    >>> table = new_table("Layers", ["name"], ["weights"])
    >>> table.add_row("conv", "1,024")
    >>> as_text(table).splitlines()[0]
    'Layers'
    """
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    options: dict[str, Any] = {"force_terminal": False, "force_jupyter": False, "color_system": None, "markup": False}
    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, **options)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).rstrip()


def as_csv(table: Table) -> str:
    """Return a table as comma-separated values; numbers are without separators of thousands.

    Example:

    >>> table = new_table("Layers", ["name"], ["weights"])
    >>> table.add_row("conv", "1,024")
    >>> as_csv(table).splitlines()
    ['name,weights', 'conv,1024']
    """
    headers, rows = _cells(table)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([[_number(cell) for cell in row] for row in rows])
    return text.getvalue()


def as_markdown(table: Table) -> str:
    """Return a table in Markdown, numbers to the right.

    Example:

    >>> table = new_table("Layers", ["name"], ["weights"])
    >>> table.add_row("a|b", "1,024")
    >>> print(as_markdown(table).rstrip())
    | name | weights |
    |---|---:|
    | a\\|b | 1,024 |
    """
    headers, rows = _cells(table)
    lines = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in row] for row in [headers, *rows]]
    rule = "|".join("---:" if right else "---" for right in _to_the_right(table))
    first, *others = [f"| {' | '.join(row)} |" for row in lines]
    return "\n".join([first, f"|{rule}|", *others]) + "\n"


def as_latex(table: Table) -> str:
    r"""Return a table as a LaTeX `tabular` with the rules of the package `booktabs`.

    Example:

    >>> table = new_table("Layers", ["name"], ["weights"])
    >>> table.add_row("conv_1", "50%")
    >>> print(as_latex(table).splitlines()[4])
    conv\_1 & 50\% \\
    """
    headers, rows = _cells(table)
    first, *others = [" & ".join(map(_escaped, row)) + r" \\" for row in [headers, *rows]]
    columns = "".join("r" if right else "l" for right in _to_the_right(table))
    inside = [r"\toprule", first, r"\midrule", *others, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *inside, r"\end{tabular}"]) + "\n"


def as_html(table: Table) -> str:
    """Return a table as HTML, as notebooks show it: the title above, what stands below it in the last row.

    Example:

    >>> table = new_table("Layers", ["name"], ["weights"])
    >>> table.add_row("<conv>", "1,024")
    >>> "<td" in as_html(table), "&lt;conv&gt;" in as_html(table)
    (True, True)
    """
    headers, rows = _cells(table)
    aligned = ["right" if right else "left" for right in _to_the_right(table)]

    def line(tag: str, row: Sequence[str]) -> str:
        cells = zip(aligned, row, strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{_on_page(cell)}</{tag}>' for side, cell in cells)

    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    below = _plain(table.caption)
    foot = f'<tfoot><tr><td colspan="{len(headers)}" style="text-align: left">{_on_page(below)}</td></tr></tfoot>'
    return (
        f'<table>\n<caption style="text-align: left">{_on_page(_plain(table.title))}</caption>\n'
        f"<thead><tr>{line('th', headers)}</tr></thead>\n<tbody>\n{body}\n</tbody>{foot if below else ''}\n</table>"
    )


def _cells(table: Table) -> tuple[list[str], list[list[str]]]:
    headers = [_plain(column.header) for column in table.columns]
    return headers, [list(row) for row in zip(*[map(_plain, column.cells) for column in table.columns], strict=True)]


def _plain(text: Any) -> str:
    return "" if text is None else str(text)


def _to_the_right(table: Table) -> list[bool]:
    return [column.justify == "right" for column in table.columns]


def _number(cell: str) -> str:
    return cell.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", cell) else cell


def _on_page(cell: str) -> str:
    return html.escape(cell).replace("\n", "<br>")


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell.replace("\n", " "))
