"""The page: what was found, drawn and told, in one file that needs no other, with the plots beside it as PNG."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any
from xml.dom import minidom

import keras
import tensorflow as tf

from tfprune.common.files import check_writable, write_atomically
from tfprune.html_report.facts import gather
from tfprune.html_report.plots import COLORS, Plot
from tfprune.html_report.sections import Section, sections
from tfprune.measure.picture import SIGNATURE

_TEMPLATE = "page.html"
_INKS = {"#ffffff": "paper", "#000000": "ink", "#333333": "ink", "#999999": "muted", "#dddddd": "grid"}
_VARIABLES = {**_INKS, **{color: f"series-{index}" for index, color in enumerate(COLORS)}}
"""Colors that the page chooses anew in dark mode, by the names that its style sheet has for them."""


def write_report(
    path: str | os.PathLike[str],
    models: Any,
    *,
    data: Any = None,
    history: Any = None,
    schedules: Any = None,
    exports: Any = (),
    overwrite: bool = False,
) -> Path:
    """Write one HTML page about models and files: what they are worth and cost, and how they came about.

    The page needs no other file, no network and no script, fits a phone, and is dark where the reader's device is.
    All its plots go as PNG into a folder beside it, `report_plots` for `report.html`. It shows, where there is
    something to show: accuracy, size, operations, latency and memory side by side; accuracy against costs; channels,
    operations and density of every layer; the curves of a training; schedules; channel groups, and why some are frozen;
    the operators of `.tflite` files, and why some are left in float.

    Args:
        path: Where the page goes; ends in `.html`.
        models: As for `tfprune.compare`: a list, or a dict from names, of built Keras models, paths of `.keras` files
            (loaded in safe mode) and paths of `.tflite` files. The first is the baseline.
        data: What accuracy is measured on, as for `tfprune.compare`. None measures nothing, and shows sizes only.
        history: What `fit` returned, its `history` dict, or the path of a `.csv` file that `CSVLogger` wrote or of a
            `.json` file that holds the dict. Behind `callbacks.LayerwiseDensity` it holds the densities too.
        schedules: A schedule of `tfprune.schedules`, or a dict of them by name.
        exports: What `tfprune.export` returned, or paths of `.tflite` files; a list. Of the files among `models` it is
            found by itself, but only the return values tell of every mode which operators should not be in float.
        overwrite: Whether a page and a folder of plots may be replaced.

    Returns:
        The path of the page.

    Raises:
        ImportError: If Jinja2 or matplotlib is not installed.
        FileExistsError: If the page or the folder exists and `overwrite` is False, or the folder holds other files.
        FileNotFoundError: If there is no file at a path.
        TypeError: If an argument has another form.
        ValueError: If a file is damaged or of another kind, the models or the data do not fit each other, or a schedule
            without an end needs one.
        OSError: If the page cannot be written.

    Example:

    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    >>> page = write_report(tempfile.mkdtemp() + "/report.html", [model], history={"loss": [0.5, 0.25]})
    >>> sorted(file.name for file in (page.parent / "report_plots").iterdir())
    ['history-01.png', 'macs.png', 'width.png']
    """
    _check_installed()
    target = check_writable(path, suffix=".html", overwrite=overwrite)
    folder = target.with_name(f"{target.stem}_plots")
    _check_folder(folder, overwrite)
    facts = gather(models, data, history, schedules, exports)
    found = sections(facts)
    first, *others = (model.name for model in facts.models)
    rest = others[0] if len(others) == 1 else f"{len(others)} others"
    page = _render(f"{first} and {rest}" if others else first, found)
    with _folder_beside(folder) as beside:
        for plot in _plots(found):
            (beside / f"{plot.name}.png").write_bytes(plot.png)
        return write_atomically(target, page)


def _check_installed() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Reports need Jinja2 and matplotlib. Install them: `pip install 'tfprune[report]'`."
        ) from error


def _check_folder(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir() or not all(_is_ours(file) for file in folder.iterdir()):
        raise FileExistsError(
            f"The plots go to {str(folder)!r}, which holds something else. Move it away, or choose another path."
        )
    if not overwrite:
        raise FileExistsError(
            f"The plots go to {str(folder)!r}, which exists already. Pass overwrite=True to replace it, or choose "
            "another path."
        )


def _is_ours(file: Path) -> bool:
    return file.suffix == ".png" and SIGNATURE.encode() in file.read_bytes()


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes the place of `target` when it is full, and vanishes if filling it fails."""
    beside, old = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("partial", "old"))
    beside.mkdir()
    try:
        yield beside
        if target.exists():
            target.rename(old)
        try:
            beside.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        for rest in (beside, old):
            shutil.rmtree(rest, ignore_errors=True)


def _plots(found: list[Section]) -> list[Plot]:
    return [plot for section in found for plot in section.plots]


def _render(title: str, found: list[Section]) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    import tfprune

    template = resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = _breakable
    pictures = {plot.name: Markup(_inline(plot)) for plot in _plots(found)}
    versions = {"tfprune": tfprune.__version__, "Keras": keras.__version__, "TensorFlow": tf.__version__}
    names = {"title": title, "sections": found, "pictures": pictures, "versions": versions}
    return environment.from_string(template).render(names)


def _breakable(text: str) -> Any:
    """Return escaped text whose long names may break behind a separator, and so need not in the middle of a word."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<=[_/.\-])(?=\w)", text)
    return Markup("<wbr>").join(escape(part) for part in parts)


def _inline(plot: Plot) -> str:
    """Return the SVG as part of a page: with ids of its own, colors by the style sheet, and a title to be read out."""
    document: Any = minidom.parseString(plot.svg)
    root = document.documentElement
    for name in ("metadata", "style"):
        for element in root.getElementsByTagName(name):
            element.parentNode.removeChild(element)
    for element in [root, *root.getElementsByTagName("*")]:
        for key, value in list(element.attributes.items()):
            element.setAttribute(key, _changed(key, value, plot.name))
    for key in ("width", "height"):
        root.removeAttribute(key)
    heading = document.createElement("title")
    heading.setAttribute("id", f"{plot.name}-title")
    heading.appendChild(document.createTextNode(plot.title))
    root.insertBefore(heading, root.firstChild)
    root.setAttribute("role", "img")
    root.setAttribute("aria-labelledby", f"{plot.name}-title")
    return root.toxml()


def _changed(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key.endswith("href"):
        return re.sub("^#", f"#{prefix}-", value)
    if key == "style":
        return re.sub("#[0-9a-f]{6}", lambda found: _color(found[0]), value)
    return value.replace("url(#", f"url(#{prefix}-")


def _color(color: str) -> str:
    return f"var(--{_VARIABLES[color]})" if color in _VARIABLES else color
