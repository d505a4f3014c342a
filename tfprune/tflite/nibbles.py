"""4-bit integers as a `.tflite` file stores them: two a byte, the lower half first, in two's complement."""

import numpy as np


def packed_nibbles(numbers: np.ndarray) -> np.ndarray:
    """Return 4-bit integers as bytes.

    Args:
        numbers: Integers from -8 to 7, an even number of them.

    Returns:
        uint8 array of half as many.

    Example:

    >>> packed_nibbles(np.array([1, -1], np.int8)).tolist()
    [241]
    """
    halves = (numbers.reshape(-1, 2) & 15).astype(np.uint8)
    return halves[:, 0] | (halves[:, 1] << 4)


def unpacked_nibbles(stored: np.ndarray) -> np.ndarray:
    """Return the 4-bit integers in bytes.

    Args:
        stored: uint8 array.

    Returns:
        int8 array of twice as many.

    Example:

    >>> unpacked_nibbles(np.array([241], np.uint8)).tolist()
    [1, -1]
    """
    halves = np.stack([stored & 15, stored >> 4], axis=1).ravel().astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)
