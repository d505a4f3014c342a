"""Lets mkdocstrings show the doctests of the docstrings as code: `Example:` becomes a section that Griffe knows."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n+(>>> .*)\Z", re.M | re.S)


class Examples(griffe.Extension):
    """Turns the closing `Example:` of a docstring, whose code is not indented, into an `Examples:` section."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(
                lambda found: "Examples:\n" + textwrap.indent(found[1], "    "), obj.docstring.value
            )
