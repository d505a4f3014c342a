"""Fills in what a new algorithm would else have to be entered in by hand: the menu of algorithms, and lists of names.

mkdocs calls `on_config` and `on_page_markdown`; tests call the functions that these are made of.
"""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
_LIST = re.compile(r"^<!-- every name of ([\w.]+) -->$", re.M)
_SHOWN = re.compile(r"^::: ([\w.]+)", re.M)


def algorithm_pages() -> list[dict[str, str]]:
    """The pages of algorithms by the names before their titles' colons, in the order of these names."""
    pages = sorted((DOCS / "algorithms").glob("*.md"), key=lambda page: _name(page).lower())
    return [{_name(page): f"algorithms/{page.name}"} for page in pages]


def with_names(markdown: str) -> str:
    """A page with the reference of every public name of a package where it asks for them, but for those shown apart."""
    return _LIST.sub(lambda found: "\n".join(f"::: {name}" for name in _names(found[1])), markdown)


def on_config(config: Any) -> Any:
    """Fill the section "Algorithms" of the menu."""
    for section in config["nav"]:
        if "Algorithms" in section:
            section["Algorithms"] = algorithm_pages()
    return config


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Fill in the names that a page asks for."""
    return with_names(markdown)


def _name(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition(":")[0].removeprefix("# ")


def _names(package: str) -> list[str]:
    shown = {name for page in (DOCS / "api").glob("*.md") for name in _SHOWN.findall(page.read_text(encoding="utf-8"))}
    module = importlib.import_module(package)
    found = {f"{package}.{each}": getattr(module, each) for each in module.__all__}
    return [
        name for name, item in found.items() if name not in shown and inspect.isroutine(item) | inspect.isclass(item)
    ]
