"""Arguments by the names that they had in earlier versions."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def renamed(old: str, new: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a decorator that lets a function take an argument by its former name too.

    Args:
        old: The name of earlier versions.
        new: The name that takes its place.

    Returns:
        The decorator. A call by the former name gives a `DeprecationWarning` that says the new one.

    Example:

    >>> @renamed("target", "budget")
    ... def half(*, budget):
    ...     return budget / 2
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     half(target=6)
    3.0
    >>> str(said[0].message)
    'half(target=...) is deprecated. The argument is called budget: half(budget=...).'
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def taking_both(*args: Any, **kwargs: Any) -> T:
            if old in kwargs:
                name = function.__name__
                if new in kwargs:
                    raise TypeError(f"{name}() got {old}= and {new}=, which are one argument. Leave out {old}=.")
                warnings.warn(
                    f"{name}({old}=...) is deprecated. The argument is called {new}: {name}({new}=...).",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return taking_both

    return decorate
