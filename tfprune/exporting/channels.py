"""What the comparison of a file and a model finds in the single channels of an output."""

import numpy as np

_STEPS = 2.0
_SLACK = 1e-3  # of a step: numbers that lie on the same grid differ by their last bits
_FLOAT_STEPS = 128  # of the span of an output that is computed in float from rounded numbers
_WIDER = 64
_LEVELS = 2
_FIXED_STEP = 1 / 256


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


def mostly_equal(far: np.ndarray, least: float, explained: np.ndarray | None = None) -> str:
    """Return what is wrong if too many numbers are far apart, in all or in one channel; empty if they are not.

    Args:
        far: Which numbers are, shape `(samples, ..., channels)`.
        least: How many of them may be, as a share; at least one number may, in each channel too.
        explained: Which numbers were found as far apart though nothing was wrong, of the same shape: twice as many may
            be, in all and in a channel, and three standard deviations of such a count.

    Example:

    >>> mostly_equal(np.array([[False, True], [False, True], [False, False]]), least=1e-3)
    '66.7% of channel 1 are more than two steps apart, and 33.3% may be'
    """
    far, explained = (_by_channel(each) for each in (far, np.zeros_like(far) if explained is None else explained))
    in_all = float(explained.mean())
    by_channel = _most(len(far), least, np.maximum(in_all, explained.mean(axis=0)))
    excess = far.sum(axis=0) - by_channel
    worst = int(excess.argmax())
    if excess[worst] > 0:
        where, found, allowed, count = f"channel {worst}", far[:, worst].sum(), by_channel[worst], len(far)
    elif far.sum() > _most(far.size, least, np.array(in_all)):
        where, found, allowed, count = "the numbers", far.sum(), _most(far.size, least, np.array(in_all)), far.size
    else:
        return ""
    shares = f"{100 * found / count:.3g}%", f"{100 * allowed / count:.3g}%"
    return f"{shares[0]} of {where} are more than two steps apart, and {shares[1]} may be"


def _most(count: int, least: float, explained: np.ndarray) -> np.ndarray:
    """How many of some numbers may be far apart; one may be in any case."""
    twice = 2 * explained * count
    return np.ceil(np.maximum(least * count, twice + 3 * np.sqrt(twice)))


def _by_channel(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])


def far_channel(expected: np.ndarray, actual: np.ndarray, tolerance: float, step: float) -> str:
    """Return what is wrong if one channel is far off though all together are not; empty if none is.

    A channel may be off by three steps, and by `tolerance` of what it varies by, or of what channels vary by.

    Args:
        expected: The outputs of a model, shape `(samples, ..., channels)`.
        actual: The outputs of its int8 file, of the same shape.
        tolerance: Largest RMS error relative to the standard deviation.
        step: The step of the quantized output.

    Example:

    >>> far_channel(np.array([[0.0, 5.0], [9.0, -5.0]]), np.zeros((2, 2)), tolerance=0.4, step=0.1)
    'Channel 0 is the furthest off: RMS error 6.36, allowed 2.2.'
    """
    if expected.ndim < 2:
        return ""
    ours, theirs = (array.reshape(-1, array.shape[-1]).astype(np.float64) for array in (expected, actual))
    errors, spreads = np.sqrt(np.mean((ours - theirs) ** 2, axis=0)), ours.std(axis=0)
    allowed = tolerance * np.maximum(spreads, spreads.mean()) + 3 * step
    worst = int(np.argmax(errors / allowed))
    if errors[worst] <= allowed[worst]:
        return ""
    return f"Channel {worst} is the furthest off: RMS error {errors[worst]:.3g}, allowed {allowed[worst]:.3g}."


def lost_channels(real: np.ndarray, step: float) -> list[int]:
    """Return the channels of an output that one step for all of them is too coarse for.

    All that such a channel does lies within two steps, zero included, while another's numbers are 64 times as large.
    A step of 1/256 is what the format fixes for a sigmoid or softmax, and no channel's fault.

    Args:
        real: The outputs of the float model, shape `(samples, ..., channels)`.
        step: The step of the quantized output.

    Returns:
        Their numbers; none for an output that is zero.

    Example:

    >>> lost_channels(np.array([[640.0, 0.05], [3.0, 0.04]]), step=640 / 255)
    [1]
    """
    if real.ndim < 2 or step in (0, _FIXED_STEP):
        return []
    sizes = np.abs(real.reshape(-1, real.shape[-1])).max(axis=0)
    return np.flatnonzero((sizes > 0) & (sizes < _LEVELS * step) & (sizes * _WIDER < sizes.max())).tolist()
