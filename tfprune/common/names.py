"""Names for people: told apart, and short enough for where they stand."""

import itertools
import re
from collections.abc import Collection, Iterable, Sequence

_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def told_apart(names: Iterable[str]) -> list[str]:
    """Return names of which no two are the same: a number stands behind those that came before.

    Args:
        names: The names.

    Returns:
        One for each, in their order.

    Example:

    >>> told_apart(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    found: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        found.append(name if name not in found else next(each for each in numbered if each not in found))
    return found


def shortened(name: str, longest: int, telling: Collection[int] = ()) -> str:
    """Return a name that fits: of a long one, as many whole words of its end and beginning as there is room for.

    Args:
        name: The name.
        longest: How many characters fit.
        telling: The numbers of words that have to stay, as far as they fit; others take what room is left.

    Returns:
        The name, perhaps with ellipses inside.

    Example:

    >>> shortened("block_13_expand_convolution", 24), shortened("block_13_expand_convolution", 12)
    ('block…expand_convolution', '…convolution')
    """
    if len(name) <= longest:
        return name
    words, kept = _words(name), set[int]()
    inwards = [index for pair in zip(reversed(range(len(words))), range(len(words)), strict=True) for index in pair]
    for index in (*telling, *inwards):
        if len(_joined(words, kept | {index})) > longest:
            break
        kept.add(index)
    if kept:
        return _joined(words, kept)
    first = (longest - 1) // 2
    return f"{name[:first]}{_ELLIPSIS}{name[first + 1 - longest :]}"


def labels(names: Sequence[str], longest: int) -> list[str]:
    """Return short names that are as different as the names are.

    Args:
        names: The names.
        longest: How many characters fit.

    Returns:
        A label for each. Names that would be shortened to the same keep the words in which they differ.

    Example:

    >>> labels(["left_camera_first_block_convolution", "left_camera_second_block_convolution", "head"], 20)
    ['…first…convolution', '…second…convolution', 'head']
    """
    found = [shortened(name, longest) for name in names]
    for label in dict.fromkeys(found):
        same = [index for index, each in enumerate(found) if each == label]
        columns = list(itertools.zip_longest(*(_words(names[index]) for index in same)))
        telling = [number for number, column in enumerate(columns) if len(set(column)) > 1]
        for index in same:
            own = [number for number in telling if columns[number][same.index(index)] is not None]
            found[index] = shortened(names[index], longest, own)
    return told_apart(found)


def _words(name: str) -> list[str]:
    """Return the words of a name; each but the first keeps what stands before it."""
    return re.findall(r"[\W_]*[^\W_]+(?:[\W_]+$)?|[\W_]+$", name)


def _joined(words: Sequence[str], kept: Collection[int]) -> str:
    """Return some words, with an ellipsis and no separators where others are left out."""
    text, before = "", -1
    for index in sorted(kept):
        gap = index != before + 1
        text += _ELLIPSIS + words[index].lstrip("_/-. ") if gap else words[index]
        before = index
    return text if before == len(words) - 1 else text + _ELLIPSIS
