"""Which layers of several models belong side by side: those of the same kind at the same place."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

Kind: TypeAlias = tuple[object, ...]
"""What two layers must have in common to stand side by side."""


class Row(NamedTuple):
    """Layers side by side: the name in each model, None where a model has none; the first of them names the row."""

    names: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """The name in the first model that has it."""
        return next(name for name in self.names if name is not None)


def matched(models: Sequence[Mapping[str, Kind]]) -> list[Row]:
    """Put layers of several models side by side, by position and kind.

    Names say little: Keras counts them up, so that two builds of one network share none and yet may share some at other
    places. So as many pairs of the same kind as possible are found that are in the same order in both models; of
    several ways the one with the most equal names. Only models of which not even half can be paired, which are other
    networks, are matched by name and kind.

    Reference: Needleman and Wunsch, A General Method Applicable to the Search for Similarities, Journal of Molecular
    Biology 1970, https://doi.org/10.1016/0022-2836(70)90057-4

    Args:
        models: For each model the kinds of its layers by name, in the order of its calls.

    Returns:
        One row for each layer that is in any of them, in the order of the first model that has it.

    Example:

    >>> first = {"conv2d": ("Conv2D",), "dense": ("Dense",)}
    >>> second = {"conv2d_1": ("Conv2D",), "relu": ("ReLU",), "dense_1": ("Dense",)}
    >>> [row.names for row in matched([first, second])]
    [('conv2d', 'conv2d_1'), (None, 'relu'), ('dense', 'dense_1')]
    """
    rows: list[Row] = []
    kinds: list[Kind] = []
    for number, model in enumerate(models):
        layers = list(model.items())
        known = [(row.name, kind) for row, kind in zip(rows, kinds, strict=True)]
        pairs = _pairs(known, layers)
        if 2 * len(pairs) < min(len(known), len(layers)):
            pairs = _pairs(known, layers, by_name=True)
        rows, kinds = _merged(rows, kinds, layers, pairs, number)
    return rows


def _merged(
    rows: list[Row], kinds: list[Kind], layers: list[tuple[str, Kind]], pairs: list[tuple[int, int]], number: int
) -> tuple[list[Row], list[Kind]]:
    """Add a column to the rows, and rows for the layers that have no partner, before the next one that has."""
    found: list[tuple[Row, Kind]] = []
    row_done = layer_done = 0
    for row, layer in [*pairs, (len(rows), len(layers))]:
        alone = [(Row((*rows[index].names, None)), kinds[index]) for index in range(row_done, row)]
        new = [(Row((*[None] * number, name)), kind) for name, kind in layers[layer_done:layer]]
        found += alone + new
        if row < len(rows):
            found.append((Row((*rows[row].names, layers[layer][0])), kinds[row]))
        row_done, layer_done = row + 1, layer + 1
    return [row for row, _ in found], [kind for _, kind in found]


def _pairs(
    first: Sequence[tuple[str, Kind]], second: Sequence[tuple[str, Kind]], by_name: bool = False
) -> list[tuple[int, int]]:
    """Return the most pairs of one kind in the order of both, and among these the most of equal names."""
    one_pair = len(first) + 1  # more than all equal names together
    best = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]  # of what lies behind each place

    def worth(i: int, j: int) -> int:
        (name, kind), (other, other_kind) = first[i], second[j]
        same = _last(name) == _last(other)
        return one_pair + same if kind == other_kind and (same or not by_name) else 0

    for i in reversed(range(len(first))):
        for j in reversed(range(len(second))):
            pair = worth(i, j)
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + pair if pair else 0)
    pairs, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        pair = worth(i, j)
        if pair and best[i][j] == best[i + 1][j + 1] + pair:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _last(name: str) -> str:
    """Return a layer's own name, without those of the models that it lies in."""
    return name.rpartition("/")[2]
