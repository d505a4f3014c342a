"""What the comparison of a file and a model finds in the single channels of an output."""

import math

import numpy as np

_STEPS = 2.0
_SLACK = 1e-3  # of a step: numbers that lie on the same grid differ by their last bits
_FLOAT_STEPS = 128  # of the span of an output that is computed in float from rounded numbers
_SHARE = 1e-3
_WIDER = 64
_LEVELS = 2


def far_apart(expected: np.ndarray, actual: np.ndarray, step: float) -> np.ndarray:
    """Return which numbers of an output are more than two steps apart.

    Args:
        expected: The outputs of a quantize-aware model.
        actual: The outputs of its file, of the same shape.
        step: The step of a quantized output; 0 for one in float, of which a step is a 128th of its span.

    Returns:
        A bool array of the same shape.

    Example:

    >>> far_apart(np.array([0.0, 1.0]), np.array([0.5, 1.75]), step=0.25).tolist()
    [False, True]
    """
    step = step or float(np.ptp(expected)) / _FLOAT_STEPS
    return ~(np.abs(actual - expected) <= (_STEPS + _SLACK) * step + 1e-6 * np.abs(expected).max(initial=0))


def mostly_equal(far: np.ndarray) -> str:
    """Return what is wrong if more than 1 in 1,000 numbers are far apart, in all or in one channel; empty if none.

    Args:
        far: Which numbers are, shape `(samples, ..., channels)`.

    Example:

    >>> mostly_equal(np.array([[False, True], [False, True], [False, False]]))
    '67% of channel 1'
    """
    far = far.reshape(len(far), -1) if far.ndim < 2 else far.reshape(-1, far.shape[-1])
    counts = far.sum(axis=0)
    worst = int(counts.argmax())
    if counts[worst] > math.ceil(_SHARE * len(far)):
        return f"{counts[worst] / len(far):.0%} of channel {worst}"
    return f"{far.mean():.1%} of the numbers" if counts.sum() > math.ceil(_SHARE * far.size) else ""


def lost_channels(real: np.ndarray, step: float) -> list[int]:
    """Return the channels of an output that one step for all of them is too coarse for.

    All that such a channel does lies within two steps, zero included, while another's numbers are 64 times as large.

    Args:
        real: The outputs of the float model, shape `(samples, ..., channels)`.
        step: The step of the quantized output.

    Returns:
        Their numbers; none for an output that is zero.

    Example:

    >>> lost_channels(np.array([[640.0, 0.05], [3.0, 0.04]]), step=640 / 255)
    [1]
    """
    if real.ndim < 2 or not step:
        return []
    sizes = np.abs(real.reshape(-1, real.shape[-1])).max(axis=0)
    return np.flatnonzero((sizes > 0) & (sizes < _LEVELS * step) & (sizes * _WIDER < sizes.max())).tolist()
