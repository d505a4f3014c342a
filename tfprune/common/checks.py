"""Checks of arguments that many rooms share, worded in one way."""

import numbers


def check_fraction(name: str, value: float) -> float:
    """Return `value`, or raise if it is not a fraction in [0, 1).

    Args:
        name: What the argument is called, for the message.
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If it is not a number in [0, 1).

    Example:

    >>> check_fraction("ratio", 0.4)
    0.4
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"{name} is the fraction to prune, a number in [0, 1). Received: {value!r}. 0.4 prunes 40%.")
    return value


def check_count(name: str, value: int) -> int:
    """Return `value`, or raise if it is not a whole number of at least 1.

    Args:
        name: What the argument is called, for the message.
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If it is something else.

    Example:

    >>> check_count("every", 2)
    2
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1. Received: {value!r}.")
    return value


def check_not_negative(name: str, value: float) -> float:
    """Return `value`, or raise if it is not a finite number of at least 0.

    Args:
        name: What the argument is called, for the message.
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If it is negative, infinite, NaN or no number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a number of at least 0. Received: {value!r}.")
    return float(value)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise if `value` is not one of these.

    Args:
        name: What the argument is called, for the message.
        value: What was given.
        choices: What is allowed.

    Raises:
        ValueError: If it is something else.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}. Received: {value!r}.")
