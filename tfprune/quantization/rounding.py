"""Rounding as int8 files and their runtime do it.

A file stores whole numbers q, and a real number is `step * (q - zero)`. An operator sums products of whole numbers:

    real      y           =  sum of   x           *    w        +  b
    stored    sy (qy-zy)  =  sum of   sx (qx-zx)  *    sw qw    +  (sx sw) qb
              qy  =  zy + round( (sx sw / sy) * whole ),   whole = sum of (qx-zx) qw + qb

`unit` is sx sw, with one sw for each channel. The model computes the same in float32, which holds whole numbers exactly
below 2**24 (518 products of the largest numbers), so that it and the file agree to the last bit. What is left to get
wrong are halves: a number midway between two levels goes up or down by its last bit. So each product, quotient and
rounding here is done in the order, the precision and with the ties of the runtime, and not in another one that would
be equal on paper: `whole * (unit / step)` is not `(whole * unit) / step` in float32.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops


def fake_quantize_weights(weights: Any, channel_axes: Sequence[int], one_scale: bool = False) -> Any:
    """Round weights to whole numbers from -127 to 127 times a scale; the gradient passes unchanged.

    The scale is a 127th of the largest weight, so none is cut off. Halves go away from zero, as in the converter.

    Args:
        weights: A float32 tensor.
        channel_axes: The axes, negative, along which every position has a scale of its own; none for one scale.
        one_scale: Whether these scales are all the same.

    Returns:
        A float32 tensor of the same shape.

    Example:

    >>> fake_quantize_weights(ops.array([[127.0, 0.0], [50.4, 254.0]]), (-1,)).numpy().tolist()
    [[127.0, 0.0], [50.0, 254.0]]
    """
    levels, largest = weight_levels(weights, channel_axes, one_scale)
    rounded = levels * (ops.where(largest > 0, largest, ops.ones_like(largest)) / 127)
    return straight_through(rounded, weights)


def weight_levels(weights: Any, channel_axes: Sequence[int], one_scale: bool = False) -> tuple[Any, Any]:
    """Return the whole numbers from -127 to 127 that stand for weights, and the largest weight for each scale.

    The gradient passes the rounding unchanged.

    Args:
        weights: A float32 tensor.
        channel_axes: The axes, negative, along which every position has a scale of its own; none for one scale.
        one_scale: Whether these scales are all the same.

    Returns:
        A float32 tensor of the same shape, and one in which all other axes have size 1.
    """
    rank = len(weights.shape)
    others = [axis for axis in range(rank) if axis - rank not in channel_axes]
    largest = ops.max(ops.abs(weights), axis=others, keepdims=True)
    largest = ops.broadcast_to(ops.max(largest), largest.shape) if one_scale else largest
    safe = ops.where(largest > 0, largest, ops.ones_like(largest))  # a dead channel has no scale of its own
    real = ops.abs(weights) / ops.stop_gradient(safe) * 127
    sign = ops.sign(weights)
    return straight_through(sign * ops.floor(real + 0.5), sign * real), largest


def divided(numbers: Any, by: int) -> Any:
    """Divide float32 numbers, correctly rounded: TensorFlow makes a division by a constant a product in graphs.

    Args:
        numbers: A float32 tensor.
        by: A whole number.

    Returns:
        A float32 tensor.
    """
    return ops.cast(ops.cast(numbers, "float64") / by, "float32")


def as_stored(inputs: Any, low: Any, step: Any, pooled: bool, unit: Any) -> Any:
    """Round as LiteRT does: halves to even numbers of steps, those of averages away from what is stored as 0.

    The gradient passes unchanged.

    Args:
        inputs: A float tensor.
        low: The smallest number of the range.
        step: The step between its 256 levels.
        pooled: Whether they are averages of rounded numbers.
        unit: Per channel, the unit of which they are whole numbers, 0 if of none; `None` if that is not known.

    Returns:
        A tensor of the same shape and dtype.
    """
    zero_point = ops.round(-low / step) - 128.0
    values = ops.cast(inputs, "float32")
    steps = values / step
    if unit is not None:
        unit = ops.cast(unit, "float32")  # all zero in mixed precision
        # The same product as in the operator, with the same rounding; a ReLU's own limit is no whole number of units.
        safe = ops.where(unit > 0, unit, ops.ones_like(unit))
        sums = ops.round(values / safe)
        steps = ops.where(ops.logical_and(unit > 0, sums * safe == values), sums * (safe / step), steps)
    if pooled:
        stored = steps + zero_point
        stored = ops.sign(stored) * ops.floor(ops.abs(stored) + 0.5 + 1e-4)  # the last bits of a half may say anything
    else:
        stored = ops.round(steps) + zero_point
    return straight_through(ops.cast((ops.clip(stored, -128.0, 127.0) - zero_point) * step, inputs.dtype), inputs)


def straight_through(rounded: Any, inputs: Any) -> Any:
    """Return `rounded`, with the gradient of `inputs`: the straight-through estimator.

    Keras' own rounding over a range stops the gradient outside of it, and sums up another for the range: a tenth of a
    training step. The range follows the largest numbers, so hardly any lie outside.

    Args:
        rounded: A tensor.
        inputs: What it was made of; a tensor of the same shape and dtype.

    Returns:
        A tensor.

    Example:

    >>> float(straight_through(ops.round(ops.array(0.7)), ops.array(0.7)))
    1.0
    """

    @ops.custom_gradient
    def passed(x: Any) -> Any:
        def gradient(*args: Any, upstream: Any = None) -> Any:
            return args[0] if upstream is None else upstream

        return rounded, gradient

    return passed(inputs)
