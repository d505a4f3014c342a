"""What is said beside the result: short lines on stderr."""

import sys


def note(text: str) -> None:
    """Print a line about what was done; stdout is for the result alone."""
    print(text, file=sys.stderr)
