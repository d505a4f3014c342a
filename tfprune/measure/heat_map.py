"""A picture of a table of numbers: one row below the other, the larger the darker."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfprune.measure.picture import STYLE, check_picture, save

_WIDTH, _TOP, _PER_ROW, _PER_COLUMN, _PER_LETTER = 1.6, 1.1, 0.26, 0.85, 0.085  # inches


def draw_heat_map(
    path: str | os.PathLike[str], rows: Sequence[str], columns: Sequence[str], values: np.ndarray, title: str
) -> Path:
    """Draw numbers as colours, each with its number in it, and write the picture.

    Args:
        path: Where the picture goes; ends in `.svg` or `.png`.
        rows: The name of each row.
        columns: The name of each column.
        values: The numbers, of shape (rows, columns); what is not finite is drawn in grey.
        title: What the numbers are.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the path ends in something else.
        OSError: If it cannot be written.
    """
    check_picture(path)
    import matplotlib
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    finite = values[np.isfinite(values)]
    top = float(finite.max(initial=np.finfo("float32").tiny))
    width = _WIDTH + _PER_LETTER * max(map(len, rows)) + _PER_COLUMN * len(columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, _TOP + _PER_ROW * len(rows)), dpi=150, layout="constrained")
        axes = figure.subplots()
        colors = matplotlib.colormaps["Blues"].with_extremes(bad="#d0d0d0")
        # Square roots, as a few rows lose far more than all others. What got better is as light as what stayed.
        norm = PowerNorm(0.5, 0.0, top)
        image = axes.imshow(np.where(np.isfinite(values), values.clip(min=0.0), np.nan), colors, norm, aspect="auto")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and norm(max(value, 0.0)) > 0.6
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", size=8, color="w" if dark else "k")
        figure.colorbar(image, ax=axes, label=title)
        return save(figure, path)
