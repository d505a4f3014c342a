"""The arrays of kernels, of which only one needs to be in memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

Arrays = Mapping[str, np.ndarray]
"""Arrays by the name of a kernel."""


class LazyArrays(Mapping[str, np.ndarray]):
    """Arrays by name that are made each time one is asked for: a large model's weights, or scores, one by one.

    Args:
        names: The names, in their order.
        make: Makes the array of a name; nobody else may have it.

    Example:

    >>> squares = LazyArrays(["a", "bc"], lambda name: np.full(2, len(name)) ** 2)
    >>> {name: array.tolist() for name, array in squares.items()}
    {'a': [1, 1], 'bc': [4, 4]}
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], np.ndarray]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
