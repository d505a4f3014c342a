"""Numbers on the command line: counts, shares, sizes with units."""

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from difflib import get_close_matches

SIZES = {
    "macs": "macs",
    "parameters": "parameters",
    "weights": "weight_bytes",
    "file": "file_bytes",
    "latency": "latency",
}
"""What a budget can limit, and what `tfprune.Budget` calls it."""

_SHARES = {"": 1.0, "%": 0.01}
_COUNTS = {**_SHARES, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {**_COUNTS, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_UNITS = {"weights": _BYTES, "file": _BYTES, "latency": _SHARES}
_LIMIT = re.compile(r"([\d.]+(?:e[+-]?\d+)?) ?([A-Za-z%]*)")


def budget(text: str) -> dict[str, float]:
    """Return the limits of a budget.

    Args:
        text: Limits as `name=number`, separated by commas; a number may have a unit, as in `file=300kB`.

    Returns:
        The limits, by the names that `tfprune.Budget` has for them.

    Raises:
        ArgumentTypeError: If it is something else.

    Example:

    >>> budget("macs=50%,file=1.5MB")
    {'macs': 0.5, 'file_bytes': 1500000.0}
    """
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, equals, amount = (each.strip() for each in part.partition("="))
        if not equals:
            raise ArgumentTypeError(f"expected name=number, such as macs=0.5,file=300kB. Received: {part!r}.")
        if name not in SIZES:
            near = get_close_matches(name, SIZES, 1)
            advice = f" Did you mean {near[0]}?" if near else ""
            raise ArgumentTypeError(f"a budget is of {', '.join(SIZES)}. Received: {name!r}.{advice}")
        if SIZES[name] in limits:
            raise ArgumentTypeError(f"{name} is given twice. Give each limit once.")
        limits[SIZES[name]] = _limit(name, amount)
    return limits


def _limit(name: str, amount: str) -> float:
    units = _UNITS.get(name, _COUNTS)
    found = _LIMIT.fullmatch(amount)
    unit = next((each for each in units if found and each.lower() == found[2].lower()), None)
    try:
        value = float(found[1]) * units[unit] if found and unit is not None else math.nan
    except ValueError:
        value = math.nan
    if name == "latency" and not 0 < value < 1:
        raise ArgumentTypeError(
            "latency is a share of the dense int8 file's, as milliseconds differ from machine to machine: latency=0.5 "
            f"is twice as fast. Received: {amount!r}."
        )
    if not 0 < value < math.inf or (value < 1 and unit not in _SHARES):
        known = ", ".join(filter(None, units))
        raise ArgumentTypeError(f"{name} is a number above 0, perhaps with a unit: {known}. Received: {amount!r}.")
    return value


def count(text: str) -> int:
    """Return a whole number of at least 1; see `budget`."""
    return int(_number(int, "a whole number of at least 1", lambda value: value >= 1, text))


def seed(text: str) -> int:
    """Return a whole number that can be a seed; see `budget`."""
    return int(_number(int, "a whole number from 0 to below 2**31", lambda value: 0 <= value < 2**31, text))


def round_to(text: str) -> int | str:
    """Return `"auto"`, or a whole number of at least 1; see `budget`."""
    return text if text == "auto" else count(text)


def positive(text: str) -> float:
    """Return a number above 0; see `budget`."""
    return _number(float, "a number above 0", lambda value: 0 < value < math.inf, text)


def fraction(text: str) -> float:
    """Return a number from 0 to below 1; see `budget`."""
    expected = "the share to remove, a number from 0 to below 1: 0.4 removes 40%"
    return _number(float, expected, lambda value: 0 <= value < 1, text)


def _number(convert: Callable[[str], float], expected: str, allowed: Callable[[float], bool], text: str) -> float:
    try:
        value = convert(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise ArgumentTypeError(f"expected {expected}. Received: {text!r}.")
    return value
