"""A picture of small multiples: one score against several costs, with the names beside the points."""

import importlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfprune.common.files import check_writable, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = (".svg", ".png")
_WIDTH, _HEIGHT, _PER_POINT = 5.0, 2.6, 0.22  # inches: upright, as a phone is held
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfprune",
    "font.family": "sans-serif",
    "font.size": 11,
}
_COLOR, _RING = "#0072b2", "#333333"
_TOUCHING = 1e6  # one touched square pixel is worse than any distance
_MOST_TICKS = 6  # so that their numbers keep apart
_WIDE_RANGE = 30  # from this ratio on, a linear axis would press the small ones together
_GAP, _REACH = 4.0, 15.0  # pixels that stay free around a name, and around the middle of a point


class Point(NamedTuple):
    """One entry in one panel."""

    name: str
    x: float
    y: float


class Panel(NamedTuple):
    """One cost on the horizontal axis, its unit, and the points that have it."""

    what: str
    unit: str
    points: tuple[Point, ...]


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    low: float
    right: float
    high: float


SIGNATURE = "made by tfprune"
"""What PNGs name as their software, so that they can be told from others."""


def draw(path: str | os.PathLike[str], panels: Sequence[Panel], score: str) -> Path:
    """Draw the panels below each other, and write the picture.

    Args:
        path: Where the picture goes; ends in `.svg` or `.png`.
        panels: What is drawn; the first point of each gets a ring.
        score: What the vertical axes show.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the path ends in something else.
        OSError: If it cannot be written.
    """
    check_picture(path)
    import matplotlib
    from matplotlib.figure import Figure

    panels = [panel for panel in panels if panel.points]
    with matplotlib.rc_context(STYLE):
        height = _HEIGHT + _PER_POINT * max(len(panel.points) for panel in panels)
        figure = Figure(figsize=(_WIDTH, height * len(panels)), dpi=150, layout="constrained")
        for panel, axes in zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
            _scatter(axes, panel, score)
        figure.draw_without_rendering()  # settles the layout, so that names can be measured
        figure.set_layout_engine("none")
        for panel, axes in zip(panels, figure.axes, strict=True):
            _label(axes, panel)
        return save(figure, path)


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise if a picture cannot be drawn or written there.

    Args:
        path: Where the picture goes.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the path ends in something else than `.svg` or `.png`.
        OSError: If it cannot be written.
    """
    suffix = Path(path).suffix
    if suffix not in _FORMATS:
        raise ValueError(f"A picture's path must end in one of {list(_FORMATS)}. Received: {str(path)!r}.")
    check_writable(path)
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError("Pictures need matplotlib. Install it: `pip install 'tfprune[plot]'`.") from error


def save(figure: "Figure", path: str | os.PathLike[str]) -> Path:
    """Write a figure, the same bytes each time; inside `matplotlib.rc_context(STYLE)`.

    Args:
        figure: The figure.
        path: Where it goes.

    Returns:
        The path.
    """
    content, suffix = io.BytesIO(), Path(path).suffix
    metadata = {"Date": None} if suffix == ".svg" else {"Software": SIGNATURE}
    figure.savefig(content, format=suffix[1:], metadata=metadata)
    return write_atomically(path, content.getvalue())


def place(points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], area: Box) -> list[Box]:
    """Return where names go: each as near to its point as it can without touching another name or any point.

    Args:
        points: Centres of the points, in pixels.
        sizes: Width and height of each name.
        area: Where names may go.

    Returns:
        A box for each name. If the area is so full that none is free, the one that touches the least.

    Example:

    >>> place([(50, 20)], [(20, 6)], Box(0, 0, 100, 40))
    [Box(left=65.0, low=17.0, right=85.0, high=23.0)]
    """
    taken = [Box(x - _REACH, y - _REACH, x + _REACH, y + _REACH) for x, y in points]
    names: list[Box] = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        left, low = _corners(x, y, width, height, area)
        touched = np.zeros(len(left))
        for box in taken:
            across = _overlap(left, left + width, box.left, box.right)
            touched += across * _overlap(low, low + height, box.low, box.high)
        away = np.hypot(_distance(x, left, left + width), _distance(y, low, low + height))
        best = int(np.argmin(touched * _TOUCHING + away))
        name = Box(*(float(edge) for edge in (left[best], low[best], left[best] + width, low[best] + height)))
        names.append(name)
        taken.append(Box(name.left - _GAP, name.low - _GAP, name.right + _GAP, name.high + _GAP))
    return names


def _corners(x: float, y: float, width: float, height: float, area: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return left and lower edges to try: beside, above and below the point, then a grid over the area."""
    beside = [(x + _REACH, y - height / 2), (x - _REACH - width, y - height / 2)]
    beside += [(x - width / 2, y + _REACH), (x - width / 2, y - _REACH - height)]
    columns = np.arange(area.left, max(area.right - width, area.left) + 1, height / 2)
    rows = np.arange(area.low, max(area.high - height, area.low) + 1, height / 2)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    tried = np.concatenate([beside, grid])
    highest = (area.right - width, area.high - height)
    inside = ((tried >= (area.left, area.low)) & (tried <= highest)).all(axis=1)
    left, low = (tried[inside] if inside.any() else grid[:1]).T
    return left, low


def _overlap(low: np.ndarray, high: np.ndarray, other_low: float, other_high: float) -> np.ndarray:
    return np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None)


def _distance(value: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.clip(np.maximum(low - value, value - high), 0, None)


def _scatter(axes: "Axes", panel: Panel, score: str) -> None:
    from matplotlib.ticker import EngFormatter

    x = [point.x for point in panel.points]
    axes.scatter(x, [point.y for point in panel.points], s=45, c=_COLOR, zorder=3)
    axes.scatter(x[:1], [panel.points[0].y], s=120, facecolors="none", edgecolors=_RING, zorder=4)
    wide = min(x) > 0 and max(x) / min(x) > _WIDE_RANGE
    axes.margins(x=0.3 if wide else 0.05, y=0.25)
    if wide:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, max(x) * 1.25 or 1)
        axes.locator_params(axis="x", nbins=_MOST_TICKS)
    axes.xaxis.set_major_formatter(EngFormatter(panel.unit))
    axes.set_xlabel(panel.what + (" (log)" if wide else ""), parse_math=False)
    axes.set_ylabel(score, parse_math=False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: "Axes", panel: Panel) -> None:
    """Write the names; a thin line leads to the point from a name that found no place beside it."""
    axes.autoscale(False)  # names and lines must not move the points
    area = Box(*axes.get_window_extent().extents)
    texts = [axes.text(0, 0, point.name, ha="center", va="center", parse_math=False) for point in panel.points]
    for text in texts:  # a name that is wider than the panel is written smaller
        text.set_fontsize(STYLE["font.size"] * min(1.0, (area.right - area.left) / text.get_window_extent().width))
    points = [tuple(axes.transData.transform((point.x, point.y))) for point in panel.points]
    extents = [text.get_window_extent() for text in texts]
    boxes = place(points, [(extent.width, extent.height) for extent in extents], area)
    to_data = axes.transData.inverted()
    for text, box, point, place_of_point in zip(texts, boxes, panel.points, points, strict=True):
        middle = np.array([(box.left + box.right) / 2, (box.low + box.high) / 2])
        text.set_position(tuple(to_data.transform(middle)))
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
        nearest = np.clip(place_of_point, (box.left, box.low), (box.right, box.high))
        if np.hypot(*(nearest - place_of_point)) > _REACH + 1:
            x, y = to_data.transform(nearest)
            axes.plot([point.x, x], [point.y, y], color="#999999", linewidth=0.6, zorder=1)
