"""What is public can be read: every name has an example that runs, and its arguments are described."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import pytest
from public import FILES, public_names

import tfprune

PACKAGES = ["", *(name for _, name, is_package in pkgutil.iter_modules(tfprune.__path__) if is_package)]


def public():
    found = {}
    for package in [*PACKAGES, *FILES]:
        module = importlib.import_module(f"tfprune.{package}".rstrip("."))
        names = public_names(module) if package in FILES else getattr(module, "__all__", ())
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    items = {name: item for name, item in found.items() if inspect.isclass(item) or inspect.isfunction(item)}
    return {name: found[name] for name in sorted(items) if not inspect.isabstract(items[name])}


PUBLIC = public()


def test_there_is_something_to_check():
    assert {"tfprune.shrink", "tfprune.callbacks.FPGM", "tfprune.schedules.Polynomial"} <= set(PUBLIC)


def described(item):
    """The arguments or attributes that a docstring, or for a dataclass that of a base, has a line for."""
    bases = item.__mro__ if dataclasses.is_dataclass(item) else (item,)
    texts = [text for text in map(inspect.getdoc, bases) if text]
    sections = [section for text in texts for section in re.split(r"(?m)^(?:Args|Attributes):\n", text)[1:]]
    return {name for section in sections for name in re.findall(r"(?m)^    \*{0,2}(\w+): ", section)}


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_has_an_example_and_describes_the_arguments(name):
    item = PUBLIC[name]
    text = inspect.getdoc(item)
    if inspect.isclass(item) and issubclass(item, Exception):
        assert text
        return
    parameters = [p for p in inspect.signature(item).parameters.values() if p.name != "kwargs" and p.name[0] != "_"]
    assert [p.name for p in parameters if p.name not in described(item)] == []
    assert [p.name for p in parameters if p.annotation is inspect.Parameter.empty] == []
    # A result that functions return and show in their own examples is told by its attributes.
    assert ">>> " in text or "Attributes:" in text
