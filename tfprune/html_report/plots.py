"""The plots of a report, each as SVG for the page and as PNG for elsewhere."""

import io
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.common.names import labels
from tfprune.html_report.history import Curves, printable
from tfprune.measure.comparison import Comparison
from tfprune.measure.picture import SIGNATURE, Panel, Point, draw
from tfprune.schedules import Schedule

COLORS = ("#8c8c8c", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""The first is the baseline's; the color-blind can tell them apart."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfprune",
    "font.family": "sans-serif",
    "font.size": 11,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.parse_math": False,  # names are not formulas
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}
_WIDTH, _HEIGHT, _DPI = 5.0, 2.8, 150  # inches: as wide as a phone
_MOST_PIXELS = 60_000  # along a side of a PNG
_LONGEST_NAME = 26
_MOST_MARKS = 100
_MOST_TICKS = 6  # so that their numbers keep apart
_FEW = 30  # so few values of a curve that each of them gets a dot

_SHARES = ("sparsity", "density")
_UNITS = ((1e9, " G"), (1e6, " M"), (1e3, " k"))

Paint = Callable[[Any], None]


@dataclass(frozen=True)
class Plot:
    """A finished plot.

    Attributes:
        name: The name of its file, without a suffix.
        title: What it shows, for those who see it and those who do not.
        svg: The picture as text.
        png: The same picture in pixels.
    """

    name: str
    title: str
    svg: str
    png: bytes


def costs(comparison: Comparison) -> list[Plot]:
    """Draw the accuracy against MACs, file size and latency, as `Comparison.plot` does, but one by one."""
    models = comparison.models
    found = []
    for what, unit, values in comparison.costs():
        known = [(model, value) for model, value in zip(models, values, strict=True) if value is not None]
        if known:
            panel = Panel(what, unit, tuple(Point(model.name, value, 100 * model.score) for model, value in known))
            name = f"accuracy-{what.replace(' ', '-').lower()}"
            with tempfile.TemporaryDirectory() as folder:
                svg, png = (draw(Path(folder, f"plot.{kind}"), [panel], "accuracy, %") for kind in ("svg", "png"))
                found.append(Plot(name, f"Accuracy against {what}", svg.read_text("utf-8"), png.read_bytes()))
    return found


def bars(
    name: str,
    title: str,
    layers: Sequence[str],
    models: Mapping[str, Sequence[float | None]],
    label: Callable[[float], str],
) -> Plot:
    """Draw one bar per layer and model.

    Args:
        name: The name of the plot's file.
        title: What it shows.
        layers: What the rows are called.
        models: For each model the values, one for each row; None where it has no such layer.
        label: How a value is written.

    Returns:
        The plot.
    """

    def paint(axes: Any) -> None:
        thick = 0.8 / len(models)
        drawn = []
        for index, values in enumerate(models.values()):
            found = [(row, value) for row, value in enumerate(values) if value is not None]
            rows, lengths = ([pair[column] for pair in found] for column in (0, 1))
            middles = np.array(rows) - 0.4 + (index + 0.5) * thick
            drawn.append(axes.barh(middles, lengths, 0.9 * thick, color=COLORS[index % len(COLORS)]))
            axes.bar_label(drawn[-1], [label(length) for length in lengths], padding=3, fontsize=9)
        _name_rows(axes, layers)
        axes.margins(x=0.18)  # for the numbers
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        legend = axes.figure.legend(drawn, [" "] * len(drawn), loc="outside upper left")
        for text, model in zip(legend.get_texts(), labels([*models], 2 * _LONGEST_NAME), strict=True):
            text.set_text(model)  # as a label, a name that starts with "_" is left out

    height = 0.3 + 0.2 * len(models) + len(layers) * (0.1 + 0.16 * len(models))
    return _drawn(name, title, height, paint)


def curves(history: Curves) -> list[Plot]:
    """Draw every value over the epochs; a value and that of validation together."""
    names = dict.fromkeys(name.removeprefix("val_") for name in history)
    return [_curve(f"history-{index:02}", name, history) for index, name in enumerate(names, 1)]


def density_map(densities: Curves) -> Plot:
    """Draw the density of every kernel over the epochs, as a map."""
    epochs = max(len(values) for values in densities.values())
    grid = np.full((len(densities), epochs), math.nan)
    for row, values in enumerate(densities.values()):
        grid[row, : len(values)] = values

    def paint(axes: Any) -> None:
        from matplotlib import colormaps

        edges = (0.5, epochs + 0.5, len(densities) - 0.5, -0.5)
        style = {"aspect": "auto", "interpolation": "nearest", "extent": edges}
        image = axes.imshow(grid, colormaps["viridis"].resampled(10), vmin=0, vmax=1, **style)
        _name_rows(axes, list(densities))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.figure.colorbar(image, ax=axes, format="{x:.0%}", location="top", aspect=40)

    return _drawn("density-epochs", "Density of every kernel over the epochs", 1.3 + 0.22 * len(densities), paint)


def schedule(name: str, given: Schedule, number: int) -> Plot:
    """Draw the value of a schedule over time, and when updates are due."""
    end = given.begin + 10 * given.frequency if given.end is None else given.end
    last = math.ceil(end * 1.08)
    due = [t for t in range(last + 1) if given.due(t)]
    nth = max(1, math.ceil(len(due) / _MOST_MARKS))
    times = sorted({*np.linspace(0, last, 300).astype(int).tolist(), given.begin, end})

    def paint(axes: Any) -> None:
        from matplotlib.ticker import EngFormatter

        axes.plot(times, [given.value(t) for t in times], color=COLORS[1])
        count = f"{len(due):,} updates" if given.end is not None else "updates, without end"
        note = count if nth == 1 else f"{count}, one of {nth} drawn"
        axes.scatter(due[::nth], [given.value(t) for t in due[::nth]], s=14, color=COLORS[2], zorder=3, label=note)
        axes.legend()
        axes.set_ylim(bottom=0)
        axes.margins(y=0.2)
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.locator_params(axis="x", nbins=_MOST_TICKS)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.grid()
        axes.set_xlabel(given.unit)

    return _drawn(f"schedule-{number:02}", f"{name}: its value over time", _HEIGHT, paint)


def short(value: float) -> str:
    """Return a number in a few characters.

    Args:
        value: The number, at least 0.

    Returns:
        Its first digits, with a unit behind.

    Example:

    >>> short(11_890_000), short(800)
    ('11.9 M', '800')
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), (1.0, ""))
    return f"{value / size:.3g}{unit}"


def _curve(file: str, name: str, history: Curves) -> Plot:
    epochs = max(len(values) for values in history.values())
    shown = {
        label: history[key] for label, key in (("training", name), ("validation", f"val_{name}")) if key in history
    }

    def paint(axes: Any) -> None:
        for (label, values), color in zip(shown.items(), COLORS[1:], strict=False):
            places = np.arange(1, len(values) + 1) * (epochs // len(values))
            marker = "o" if len(values) <= _FEW else None
            axes.plot(places, values, color=color, marker=marker, markersize=3, label=label)
        if len(shown) > 1:
            axes.legend()
        axes.margins(y=0.1)
        axes.grid()
        if name in _SHARES:
            axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)

    return _drawn(file, name, _HEIGHT, paint)


def _name_rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels([printable(name) for name in names], _LONGEST_NAME), fontsize=10)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _drawn(name: str, title: str, height: float, paint: Paint) -> Plot:
    """Return what `paint` draws on the axes that it is given."""
    import matplotlib
    from matplotlib.figure import Figure

    svg, png = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), dpi=min(_DPI, _MOST_PIXELS / height), layout="constrained")
        paint(figure.subplots())
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", metadata={"Software": SIGNATURE})
    return Plot(name, title, svg.getvalue().decode(), png.getvalue())
