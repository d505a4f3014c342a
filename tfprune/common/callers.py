"""Who called the library."""

import inspect


def stacklevel_of_user() -> int:
    """Return the `stacklevel` with which a warning of the calling function points to the user's line.

    A function that warns may be called directly, or by others of the library.

    Example:

    >>> stacklevel_of_user() >= 1
    True
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and f"{frame.f_globals.get('__name__')}.".startswith("tfprune."):
        frame, level = frame.f_back, level + 1
    return max(level, 1)
